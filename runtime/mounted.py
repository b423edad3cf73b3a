"""Whether a container that is made, and does not run yet, got the very files that were checked.

runc mounts by path. Who may write to a folder above that path can exchange it for a link between the check and the
mount, so the result is compared before the user's program starts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from runtime.errors import CannotStart
from runtime.model import BindMount, TmpfsMount

SYS_OPENAT2 = 437  # the same on every architecture
RESOLVE_IN_ROOT = 0x10  # linux/openat2.h: links are followed as if the folder were /


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def verify(process_id: int, mounts: Iterable[BindMount | TmpfsMount]) -> None:
    """Raises CannotStart where a mount of the process is not what its `identity` says; blocking, but short."""
    wanted = [mount for mount in mounts if isinstance(mount, BindMount) and mount.identity is not None]
    if not wanted:
        return
    root = os.open(f"/proc/{process_id}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in wanted:
            if _identity_in(root, mount.target) != mount.identity:
                raise CannotStart(
                    f"bind mount of {mount.source}: something else was put in its place while the container was made; "
                    "nothing of it was started"
                )
    finally:
        os.close(root)


def _identity_in(root: int, path: str) -> tuple[int, int]:
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    library = ctypes.CDLL(None, use_errno=True)
    file = library.syscall(SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if file < 0:
        number = ctypes.get_errno()
        raise CannotStart(f"the mount {path} cannot be looked at in the container: {os.strerror(number)}")
    try:
        info = os.fstat(file)
    finally:
        os.close(file)
    return info.st_dev, info.st_ino
