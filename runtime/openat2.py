"""Opening files as a container sees them, whatever its links say: openat2(2), which nothing can race."""

from __future__ import annotations

import ctypes
import errno
import os

SYS_OPENAT2 = 437  # the same on every architecture
RESOLVE_NO_MAGICLINKS = 0x02  # linux/openat2.h: /proc/PID/root and the like lead nowhere
TRIES_MAX = 100
RESOLVE_IN_ROOT = 0x10  # links are followed as if the folder were /


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """A new descriptor, closed on exec, of `path` below the folder `root`. Raises OSError that names `path`."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    for tries_left in reversed(range(TRIES_MAX)):
        found = _syscall(SYS_OPENAT2, root, os.fsencode(path or "/"), ctypes.byref(how), ctypes.sizeof(how))
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        # EAGAIN: something was renamed while ".." was looked at, so the kernel cannot say that it stayed within.
        if number not in (errno.EINTR, errno.EAGAIN) or tries_left == 0:
            raise OSError(number, os.strerror(number), path)
    raise AssertionError("the last try returns or raises")
