"""Files that are only in memory: on a ramfs, whose pages the kernel never writes to a swap device, unlike tmpfs."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from storage.errors import StorageFailure

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8  # <sys/mount.h>
_libc = ctypes.CDLL(None, use_errno=True)


class MemoryFiles:
    """A folder for each owner below one that only root may enter. The mount outlives the daemon, not the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, owner: str, name: str, content: bytes, uid: int, gid: int, mode: int) -> Path:
        """Makes or replaces a file. Raises StorageFailure where it cannot be kept in memory."""
        self._mount()
        folder = self._folder / owner
        folder.mkdir(mode=0o700, exist_ok=True)
        return write_file(folder / name, content, uid, gid, mode)

    def remove(self, owner: str) -> None:
        """All files of an owner; safe to repeat. Who has mounted one keeps it."""
        shutil.rmtree(self._folder / owner, ignore_errors=True)

    def owners(self) -> set[str]:
        """Who has files here."""
        return {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()

    def _mount(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_dev != self._folder.parent.stat().st_dev:
            return
        flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        if _libc.mount(b"fairway", os.fsencode(self._folder), b"ramfs", flags, b"mode=700"):
            words = os.strerror(ctypes.get_errno())
            raise StorageFailure(f"no secret can be given to a task: a ramfs at {self._folder}: {words}")


def write_file(path: Path, content: bytes, uid: int, gid: int, mode: int) -> Path:
    """Makes or replaces a file with this owner and these permissions; its path. Raises OSError."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
        os.fchown(file, uid, gid)
        os.fchmod(file, mode)
    return path
