"""Which paths of the host a task may mount: those below prefixes that the host's configuration names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from storage.errors import NotAllowed, NotFound

CONFIGURATION_KEY = "storage.allowed_bind_mounts"


@dataclass(frozen=True)
class CheckedSource:
    """A path, and which file or folder stood there when it was checked: what is mounted must be that one."""

    path: Path
    device: int  # st_dev
    inode: int  # st_ino


def allowed_source(source: str, allowed: tuple[Path, ...]) -> CheckedSource:
    """The path with every link resolved, to be mounted as it is returned.

    Links are followed before the comparison, on both sides, so none leads out of a prefix; a link that
    somebody puts there later shows in device and inode, which whoever mounts it compares. Raises
    NotAllowed, or NotFound where the path does not exist (but only below a prefix: what exists elsewhere
    is not told).
    """
    resolved = Path(os.path.realpath(source))
    prefixes = [Path(os.path.realpath(prefix)) for prefix in allowed]
    shown = ", ".join(str(prefix) for prefix in allowed) or "nothing"
    refusal = NotAllowed(
        f"bind mount of {source}: this host allows {shown}; to allow it, add the path to "
        f"{CONFIGURATION_KEY} in the host's fairwayd.toml"
    )
    if not any(_below(resolved, prefix) for prefix in prefixes):
        raise refusal
    try:
        file = os.open(resolved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"bind mount of {source}: there is no such path on this host; create it there first") from None
    try:
        # Where the kernel really ended up: a folder on the way may have become a link meanwhile.
        if not any(_below(Path(f"/proc/self/fd/{file}").readlink(), prefix) for prefix in prefixes):
            raise refusal
        info = os.fstat(file)
    finally:
        os.close(file)
    return CheckedSource(resolved, info.st_dev, info.st_ino)


def _below(path: Path, prefix: Path) -> bool:
    return path == prefix or prefix in path.parents
