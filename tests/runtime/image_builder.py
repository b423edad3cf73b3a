"""Builds small images of busybox in pure Python: as an OCI layout or as `docker save` writes it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from runtime.image_model import host_architecture

_NAMES = (
    "sh cat echo env id hostname pwd sleep true false touch ls mount unshare dd printf seq stty test kill",
    "mkdir chown chmod wc head tail grep ps yes nc httpd rm whoami stat tr awk uname timeout mknod",
)
APPLETS = " ".join(_NAMES).split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nwheel:x:10:root\n"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: dict[str, tuple[bytes, int]], links: dict[str, str], folders: dict[str, int]) -> bytes:
    """A tar: name -> (content, mode), name -> link target, name -> mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in folders.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def busybox_layers() -> list[bytes]:
    busybox = Path("/bin/busybox").read_bytes()
    folders = {"bin": 0o755, "tmp": 0o1777, "data": 0o750, "root": 0o700, "home": 0o755, "proc": 0o555}
    folders |= {"dev": 0o755, "sys": 0o555, "sbin": 0o755}
    base = layer({"bin/busybox": (busybox, 0o755)}, {f"bin/{name}": "busybox" for name in APPLETS}, folders)
    accounts = layer(
        {
            "etc/passwd": (PASSWD.encode(), 0o644),
            "etc/group": (GROUP.encode(), 0o644),
            "data/seed": (b"from the image\n", 0o640),
        },
        {},
        {"etc": 0o755},
    )
    return [base, accounts]


def config_document(layers: list[bytes], architecture: str, settings: dict[str, Any]) -> bytes:
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in layers]},
    }
    return json.dumps(document).encode()


def oci_layout(
    path: Path,
    name: str = "local/busybox:1",
    *,
    layers: list[bytes] | None = None,
    architecture: str = "",
    settings: dict[str, Any] | None = None,
    zipped_layers: bool = False,
    damage: str = "",
) -> Path:
    """`damage`: "layer" flips a byte of the last layer, "lacking" leaves it out, "size" lies about it."""
    layers = layers or busybox_layers()
    config = config_document(layers, architecture or host_architecture(), settings or default_settings())
    stored = [gzip.compress(data, 1) if zipped_layers else data for data in layers]
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if zipped_layers else "")
    entries = [{"mediaType": kind, "digest": sha256(data), "size": len(data)} for data in stored]
    if damage == "size":
        entries[-1]["size"] = len(stored[-1]) + 512
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(config),
                "size": len(config),
            },
            "layers": entries,
        }
    ).encode()
    blobs = {sha256(data): data for data in (*stored, config, manifest)}
    last = sha256(stored[-1])
    if damage == "layer":
        blobs[last] = stored[-1][:-600] + bytes([stored[-1][-600] ^ 1]) + stored[-1][-599:]
    if damage == "lacking":
        del blobs[last]
    annotations = {"org.opencontainers.image.ref.name": name} if name else {}
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha256(manifest),
                "size": len(manifest),
                "annotations": annotations,
            }
        ],
    }
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    members |= {f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()}
    return write_tar(path, members)


def docker_save(
    path: Path,
    name: str = "busybox:1",
    *,
    layers: list[bytes] | None = None,
    architecture: str = "",
    damage: str = "",
) -> Path:
    layers = layers or busybox_layers()
    config = config_document(layers, architecture or host_architecture(), default_settings())
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    members = {config_name: config}
    paths = []
    for number, data in enumerate(layers):
        paths.append(f"layer{number}/layer.tar")
        members[paths[-1]] = data
    if damage == "layer":
        members[paths[-1]] = layers[-1] + b"\0" * 512
    entry = {"Config": config_name, "RepoTags": [name] if name else None, "Layers": paths}
    members["manifest.json"] = json.dumps([entry]).encode()
    return write_tar(path, members)


def default_settings() -> dict[str, Any]:
    return {
        "Env": ["PATH=/bin:/sbin", "FROM_IMAGE=yes"],
        "Cmd": ["sleep", "1000"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 2},
    }


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def zipped(path: Path) -> Path:
    target = path.with_suffix(".tar.gz")
    target.write_bytes(gzip.compress(path.read_bytes(), 1))
    return target
