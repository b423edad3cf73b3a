"""Linux calls that Python 3.11 does not have: unshare(2), mount(2) and umount2(2)."""

from __future__ import annotations

import ctypes
import os

# <linux/sched.h>
NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000
# <sys/mount.h>
MOUNT_NO_SUID = 0x2
MOUNT_NO_DEVICES = 0x4
MOUNT_NO_EXECUTION = 0x8
MOUNT_BIND = 0x1000
MOUNT_RECURSIVE = 0x4000
MOUNT_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leaves the caller's namespaces named in `flags` for new ones; OSError as unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); OSError names the target."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()),
        f"mount of {source} on {target}",
    )


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2); OSError names the target."""
    _checked(_libc.umount2(target.encode(), ctypes.c_int(flags)), f"unmount of {target}")
