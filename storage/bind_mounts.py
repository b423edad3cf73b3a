"""Which paths of the host a task may mount: those below prefixes that the host's configuration names."""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import NotAllowed, NotFound

CONFIGURATION_KEY = "storage.allowed_bind_mounts"


def allowed_source(source: str, allowed: tuple[Path, ...]) -> Path:
    """The path with every link resolved, to be mounted as it is returned.

    Links are followed before the comparison, on both sides, so none leads out of a prefix. Raises
    NotAllowed, or NotFound where the path does not exist (but only below a prefix: what exists elsewhere
    is not told).
    """
    resolved = Path(os.path.realpath(source))
    if not any(_below(resolved, Path(os.path.realpath(prefix))) for prefix in allowed):
        shown = ", ".join(str(prefix) for prefix in allowed) or "nothing"
        raise NotAllowed(
            f"bind mount of {source}: this host allows {shown}; to allow it, add the path to "
            f"{CONFIGURATION_KEY} in the host's fairwayd.toml"
        )
    if not resolved.exists():
        raise NotFound(f"bind mount of {source}: there is no such path on this host; create it there first")
    return resolved


def _below(path: Path, prefix: Path) -> bool:
    return path == prefix or prefix in path.parents
