"""A small disk of its own for every host's state, so that it can be filled without harm to anything else."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.cluster import Lab

DISK_BYTES = 192 << 20
BALLAST = "ballast"
CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def small_disks(lab: Lab, folder: Path) -> Iterator[dict[str, Path]]:
    """Host -> where its disk is mounted. Every host is switched off and on once, with its state on the disk."""
    mounted: dict[str, Path] = {}
    try:
        for host in lab.hosts():
            state = lab.paths.host_state(host) / "fairway"
            lab.kill(host)
            image = folder / f"{host}.img"
            with image.open("wb") as file:
                file.truncate(DISK_BYTES)
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            kept = state.with_name("fairway.kept")
            state.rename(kept)
            state.mkdir(mode=kept.stat().st_mode & 0o7777)
            _run("mount", "-o", "loop", str(image), str(state))
            mounted[host] = state
            shutil.copytree(kept, state, dirs_exist_ok=True, symlinks=True)
            lab.start(host)
        yield mounted
    finally:
        for host, state in mounted.items():
            with contextlib.suppress(Exception):
                lab.kill(host)
            _run("umount", "--lazy", str(state))


def fill(disk: Path) -> None:
    """Leaves no free byte."""
    with contextlib.suppress(OSError), (disk / BALLAST).open("wb", buffering=0) as file:
        for chunk in (CHUNK_BYTES, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(chunk))


def free(disk: Path) -> None:
    """Takes away what `fill` wrote."""
    (disk / BALLAST).unlink(missing_ok=True)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
