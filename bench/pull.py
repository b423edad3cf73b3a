"""An image of 200 MB in 10 layers out of Debian's docker-registry into containerd, ready to run, beside `ctr image
pull`; and read by skopeo, which stores it as it comes.

Registry, containerd and all sides are on this machine and share its CPUs, so that what is compared is the work that
each side does for the same bytes, not a network. Fairway's side is the code that its leader runs, in a process of its
own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import containerd, output_of, running, wait
from bench.table import Report, Row, quotient
from lab import debian_packages
from lab.layout import LabError

RUNS = 5
LAYERS = 10
LAYER_BYTES = 20 << 20
BAR = 1.0  # of ctr's time
Within = Callable[[Sequence[str]], list[str]]
_MEDIA = "application/vnd.oci.image."


def measure(_sides: Sequence[str]) -> Report:
    """Alternates the sides; each begins with nothing of the image in containerd."""
    found: dict[str, list[float]] = {"fairway": [], "ctr": [], "skopeo": []}
    require_skopeo()
    with tempfile.TemporaryDirectory(prefix="fairway-bench-") as name:
        folder = Path(name)
        with registry(folder / "registry", _free_address()) as log, containerd(folder / "containerd") as to:
            image = fill(log.address, folder)
            for run in range(RUNS):
                found["fairway"].append(_fairway(to, image))
                found["ctr"].append(_ctr(to, image))
                target = folder / f"copy-{run}"
                began = time.monotonic()
                output_of(_skopeo(f"docker://{image}", f"oci:{target}:1", "--src-tls-verify=false"), "skopeo")
                found["skopeo"].append(time.monotonic() - began)
                shutil.rmtree(target)
    size = f"{LAYERS * LAYER_BYTES >> 20} MB, {LAYERS} layers"
    ratio = statistics.median(found["fairway"]) / statistics.median(found["ctr"])
    return Report(
        "pull",
        "from the registry into containerd",
        [
            Row(
                f"{size}, unpacked",
                "s",
                found["fairway"],
                "ctr",
                found["ctr"],
                "ctr's time / Fairway's",
                quotient(found["ctr"], found["fairway"]),
                "no slower than ctr",
                ratio <= BAR,
            ),
            Row(
                f"{size}, skopeo does not unpack",
                "s",
                found["fairway"],
                "skopeo",
                found["skopeo"],
                "skopeo's time / Fairway's",
                quotient(found["skopeo"], found["fairway"]),
            ),
        ],
        ["the start of ctr's process is part of its time; Fairway's begins with the request to a daemon that runs"],
    )


def require_skopeo() -> None:
    """Raises LabError."""
    if shutil.which("skopeo") is None:
        raise LabError("skopeo fills the registry and is a peer: apt-get install skopeo")


@dataclass(frozen=True)
class Registry:
    """docker-registry, and the file that it logs requests in."""

    address: str
    log: Path

    def blob_bytes(self) -> int:
        """How much it has sent of blobs so far."""
        sent = re.findall(r'"GET /v2/\S+/blobs/\S+ HTTP/1.1" 20\d (\d+)', self.log.read_text(errors="replace"))
        return sum(map(int, sent))


@contextlib.contextmanager
def registry(folder: Path, address: str, within: Within = list) -> Iterator[Registry]:
    """Debian's, by plain HTTP; `within` makes the command line that runs another in its network."""
    folder.mkdir()
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.json").write_text(json.dumps(config))
    package = debian_packages.unpacked("docker-registry", ["docker-registry"], with_libraries=False)
    argv = [str(package / "usr/bin/docker-registry"), "serve", str(folder / "config.json")]
    host, _, port = address.rpartition(":")
    listens = within(["bash", "-c", f"</dev/tcp/{host}/{port}"])
    with running(within(argv), folder / "log"):
        wait(lambda: subprocess.run(listens, stderr=subprocess.DEVNULL, check=False).returncode == 0, "it listens")
        yield Registry(address, folder / "log")


def fill(address: str, folder: Path, within: Within = list) -> str:
    """Gives the registry the image; the image's name."""
    image = f"{address}/bench/pull:1"
    archive = _archive(folder / "image.tar")
    argv = _skopeo(f"oci-archive:{archive}", f"docker://{image}", "--dest-tls-verify=false")
    output_of(within(argv), "skopeo")
    archive.unlink()
    return image


def _free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def _skopeo(source: str, target: str, *options: str) -> list[str]:
    return ["skopeo", "--insecure-policy", "copy", "-q", *options, source, target]


def _fairway(to: Path, image: str) -> float:
    text = output_of([sys.executable, "-m", "bench.pull_side", str(to), image], "Fairway's side")
    return float(text)


def _ctr(to: Path, image: str) -> float:
    ctr = ["ctr", "-a", str(to), "-n", "ctr"]
    began = time.monotonic()
    output_of([*ctr, "image", "pull", "--plain-http", image], "ctr image pull")
    taken = time.monotonic() - began
    output_of([*ctr, "image", "rm", "--sync", image], "ctr image rm")
    return taken


def _archive(path: Path) -> Path:
    """An OCI archive; half of what is in its layers does not compress."""
    layers = [_layer(number) for number in range(LAYERS)]
    config = json.dumps(
        {
            "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}manifest.v1+json",
            "config": _entry("config.v1+json", config),
            "layers": [_entry("layer.v1.tar", layer) for layer in layers],
        }
    ).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [_entry("manifest.v1+json", manifest)]}).encode()
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    members |= {f"blobs/{_digest(data).replace(':', '/')}": data for data in (*layers, config, manifest)}
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def _layer(number: int) -> bytes:
    """Files of 1 MiB; of LAYER_BYTES when compressed, about."""
    source = random.Random(number)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in range(LAYER_BYTES >> 20):
            entry = tarfile.TarInfo(f"layer-{number}/file-{file}")
            data = source.randbytes(1 << 20) + b"\0" * (1 << 20)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _entry(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"{_MEDIA}{kind}", "digest": _digest(data), "size": len(data)}
