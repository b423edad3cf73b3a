"""Writes a container image archive: an OCI image layout in a tar file, the same bytes for the same input.

Formats: opencontainers/image-spec image-layout.md, manifest.md, config.md, layer.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

_MEDIA = "application/vnd.oci.image."
_CREATED = "1970-01-01T00:00:00Z"


@dataclass
class RootFilesystem:
    """The files of an image: path without leading slash -> content; all owned by root."""

    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # content, mode
    links: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)  # path -> mode; parents are made by themselves

    def add_text(self, path: str, text: str, mode: int = 0o644) -> None:
        self.files[path.lstrip("/")] = (text.encode(), mode)

    def add_file(self, path: str, source: Path) -> None:
        """Copies a file of the machine, following a link at its end."""
        mode = 0o755 if source.stat().st_mode & 0o111 else 0o644
        self.files[path.lstrip("/")] = (source.read_bytes(), mode)

    def size_bytes(self) -> int:
        return sum(len(content) for content, _ in self.files.values())

    def _parents(self) -> dict[str, int]:
        folders = dict(self.folders)
        for path in [*self.files, *self.links, *self.folders]:
            for parent in Path(path).parents:
                if str(parent) not in (".", "") and str(parent) not in self.links:
                    folders.setdefault(str(parent), 0o755)
        return folders

    def layer(self) -> bytes:
        """The files as one uncompressed layer."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, mode in sorted(self._parents().items()):
                entry = _entry(path, mode)
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            for path, target in sorted(self.links.items()):
                entry = _entry(path, 0o777)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
            for path, (content, mode) in sorted(self.files.items()):
                entry = _entry(path, mode)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def write_to(self, folder: Path) -> None:
        """The same files as a folder, for programs that want no image (`runc run`, `docker import`)."""
        for path, mode in sorted(self._parents().items()):
            (folder / path).mkdir(parents=True, exist_ok=True)
            (folder / path).chmod(mode)
        for path, target in self.links.items():
            (folder / path).symlink_to(target)
        for path, (content, mode) in self.files.items():
            (folder / path).write_bytes(content)
            (folder / path).chmod(mode)


def _entry(path: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode = mode
    return entry  # owner 0:0 and time 0 are TarInfo's defaults


@dataclass(frozen=True)
class ImageSettings:
    """What a container of the image does when nobody says otherwise."""

    name: str  # "shop-web:1"
    command: tuple[str, ...]
    environment: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    exposed: tuple[str, ...] = ()  # "6379/tcp"
    working_dir: str = "/"
    stop_signal: str = "SIGTERM"
    architecture: str = "amd64"


def archive(settings: ImageSettings, root: RootFilesystem) -> bytes:
    """The image as the content of a tar file that `fairway image load` and `ctr image import` read."""
    layer = root.layer()
    config = _json(
        {
            "created": _CREATED,
            "architecture": settings.architecture,
            "os": "linux",
            "config": {
                "Cmd": list(settings.command),
                "Env": list(settings.environment),
                "User": settings.user,
                "ExposedPorts": {port: {} for port in settings.exposed},
                "WorkingDir": settings.working_dir,
                "StopSignal": settings.stop_signal,
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created": _CREATED, "created_by": "fairway lab, from Debian packages"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MEDIA + "manifest.v1+json",
            "config": _descriptor(_MEDIA + "config.v1+json", config),
            "layers": [_descriptor(_MEDIA + "layer.v1.tar", layer)],
        }
    )
    full_name = f"docker.io/library/{settings.name}"
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MEDIA + "index.v1+json",
            "manifests": [
                {
                    **_descriptor(_MEDIA + "manifest.v1+json", manifest),
                    "platform": {"architecture": settings.architecture, "os": "linux"},
                    "annotations": {
                        "io.containerd.image.name": full_name,
                        "org.opencontainers.image.ref.name": settings.name.partition(":")[2] or "latest",
                    },
                }
            ],
        }
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        contents = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index}
        contents |= {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (config, manifest, layer)}
        for path, content in contents.items():
            entry = _entry(path, 0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
