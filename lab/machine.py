"""What a lab needs of the machine, checked before anything is made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.layout import LabError


def check_machine() -> None:
    if os.geteuid() != 0:
        raise LabError("a lab needs root, for it makes namespaces: run it with sudo")
    missing = [name for name in ("containerd", "runc", "nft", "ip", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        raise LabError(
            f"a lab needs {', '.join(missing)}: apt-get install containerd runc nftables iproute2 util-linux"
        )


def check_state_folder(folder: Path) -> None:
    """containerd's overlayfs cannot lie on overlayfs."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    best = ("", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind = line.split()[:3]
        prefix = target.rstrip("/") + "/"
        if f"{existing.resolve()}/".startswith(prefix) and len(target) >= len(best[0]):
            best = (target, kind)
    if best[1] == "overlay":
        raise LabError(
            f"{folder} is on overlayfs, on which containers cannot be unpacked: "
            "name a folder on another file system with --state-folder (a tmpfs will do)"
        )
