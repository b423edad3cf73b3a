"""Whether a container that is made, and does not run yet, got the very files that were checked.

runc mounts by path. Who may write to a folder above that path can exchange it for a link between the check and the
mount, so the result is compared before the user's program starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from runtime.errors import CannotStart
from runtime.model import BindMount, TmpfsMount
from runtime.openat2 import open_in_root


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
    try:
        file = open_in_root(root, path, os.O_PATH)
    except OSError as error:
        raise CannotStart(f"the mount {path} cannot be looked at in the container: {error.strerror}") from error
    try:
        info = os.fstat(file)
    finally:
        os.close(file)
    return info.st_dev, info.st_ino
