"""What tests that mount something leave behind is nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path


def unmount(folder: Path) -> None:
    """Fine where nothing is mounted."""
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True, timeout=60)
