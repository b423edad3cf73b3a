"""containerd's disk is full: that is said, nothing is left behind, and the rest goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import errors
from runtime.model import RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime import image_builder
from tests.runtime.conftest import Containerd, drive, end_leftovers, remove_mounts, until

DISK_BYTES = 24 << 20
BIG_BYTES = 32 << 20


@contextlib.contextmanager
def small_containerd(disk_bytes: int) -> Iterator[Containerd]:
    """A containerd of its own whose state is on a small ext4 in a file."""
    with tempfile.TemporaryDirectory(prefix="fwfull-") as name:
        folder = Path(name)
        disk = folder / "disk"
        with disk.open("wb") as file:
            file.truncate(disk_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True, env={**os.environ, "PATH": "/usr/sbin:/sbin"})
        (folder / "root").mkdir()
        subprocess.run(["mount", "-o", "loop", disk, folder / "root"], check=True)
        server = Containerd(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()
            end_leftovers(folder)
            remove_mounts(folder)


@pytest.fixture
def small() -> Iterator[Containerd]:
    with small_containerd(DISK_BYTES) as server:
        yield server


def blobs(folder: Path) -> set[str]:
    """`os.walk`: what is gone meanwhile is passed over."""
    content = folder / "root" / "io.containerd.content.v1.content"
    return {
        f"{place}/{name}"
        for part in ("blobs", "ingest")
        for place, _, names in os.walk(content / part)
        for name in names
    }


def snapshots(folder: Path) -> set[str]:
    return {path.name for path in (folder / "root/io.containerd.snapshotter.v1.overlayfs/snapshots").glob("*")}


def test_a_full_disk_is_said_and_left_as_it_was(small: Containerd, tmp_path: Path) -> None:
    folder = small.folder
    settings = RuntimeSettings(folder / "c.sock", folder / "runc", tmp_path / "logs", tmp_path / "run")
    fits = image_builder.oci_layout(tmp_path / "fits.tar", "fits")
    noise = image_builder.layer({"big": (os.urandom(BIG_BYTES), 0o644)}, {}, {})
    big = image_builder.oci_layout(tmp_path / "big.tar", "big", layers=[noise])
    zeros = image_builder.layer({"big": (bytes(BIG_BYTES), 0o644)}, {}, {})
    packed = image_builder.oci_layout(tmp_path / "packed.tar", "packed", layers=[zeros], zipped_layers=True)

    async def body(runtime: Runtime) -> None:
        small_image = (await runtime.images.load_archive(fits))[0]
        before = blobs(folder)
        with pytest.raises(errors.NoSpace, match="disk is full"):
            await runtime.images.load_archive(big)
        await until(lambda: blobs(folder) == before)
        assert [image.name for image in await runtime.images.list()] == [small_image.name]
        packed_image = (await runtime.images.load_archive(packed))[0]
        with pytest.raises(errors.NoSpace, match="disk is full"):
            await runtime.images.unpack(packed_image.manifest_digest)
        await until(lambda: not snapshots(folder))
        await runtime.images.remove("packed")
        await until(lambda: blobs(folder) == before)
        await runtime.images.unpack(small_image.manifest_digest)

    drive(settings, body)
