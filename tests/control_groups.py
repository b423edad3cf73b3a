"""Control groups of this machine, as the tests that look for what is left see them."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_FOLDER = Path("/sys/fs/cgroup")


def control_groups(name: str) -> list[Path]:
    """All of this name, in each hierarchy and at any depth. Groups of others come and go meanwhile: `os.walk` passes
    over a folder that is gone, which `Path.glob` fails at."""
    return [Path(folder, name) for folder, inside, _ in os.walk(CGROUP_FOLDER) if name in inside]
