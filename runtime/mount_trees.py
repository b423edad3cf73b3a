"""What is mounted, taken as a descriptor and attached elsewhere: open_tree(2), move_mount(2), setns(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# The same on every architecture.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC  # linux/mount.h
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MS_BIND, _MNT_DETACH = 0x1000, 2
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000  # linux/sched.h

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def clone(source: Path, *, recursive: bool) -> int:
    """What is mounted at `source`, once more and nowhere as yet; `recursive`: with what is mounted below it. The
    descriptor is the caller's to close, with which it is gone unless it was attached. Raises OSError."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    result = libc.syscall(
        ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(AT_FDCWD), os.fsencode(source), ctypes.c_uint(flags)
    )
    return checked(result, source)


def attach(tree: int, target: Path) -> None:
    """Mounts what `clone` gave at `target`, which is there. Raises OSError."""
    checked(
        libc.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            ctypes.c_int(tree),
            b"",
            ctypes.c_int(AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def enter_mount_namespace(descriptor: int) -> None:
    """The calling thread, which must be used for nothing else after that. Raises OSError."""
    checked(libc.unshare(ctypes.c_int(_CLONE_FS)), Path("/"))
    checked(libc.setns(ctypes.c_int(descriptor), ctypes.c_int(_CLONE_NEWNS)), Path("/proc/PID/ns/mnt"))


def bind(source: Path, target: Path) -> None:
    """Raises OSError."""
    checked(libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND), None), target)


def unmount(target: Path) -> None:
    """Who has mounted it elsewhere keeps it. Raises OSError."""
    checked(libc.umount2(os.fsencode(target), ctypes.c_int(_MNT_DETACH)), target)


def checked(result: int, path: Path) -> int:
    """The result of a call, or OSError with the number that the kernel left."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(result)
