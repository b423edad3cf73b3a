"""Whether there is room on this host for images that no task here needs yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

UNPACKED_TIMES = 2  # an image takes about its size again when it is unpacked


class Room:
    """Every image of the cluster is fetched ahead, as long as that does not fill the disk."""

    def __init__(self, high_percent: int, low_percent: int) -> None:
        self.folders: Sequence[Path] = ()  # where containerd keeps images, once it has said so
        self.given_up: set[str] = set()  # digests that were removed here for want of space
        self._high_percent = high_percent
        self._low_percent = low_percent

    def has(self, digest: str, size_bytes: int) -> bool:
        """Whether an image may be fetched that nobody here waits for. What was given up comes back only where it would
        not have to go again."""
        percent = self._low_percent if digest in self.given_up else self._high_percent
        for folder in self.folders:
            try:
                status = os.statvfs(folder)
            except OSError:
                continue
            used, whole = used_and_whole_bytes(status)
            if 100 * (used + UNPACKED_TIMES * size_bytes) > percent * whole:
                return False
        return True


def used_and_whole_bytes(status: os.statvfs_result) -> tuple[int, int]:
    """As df(1) counts: the whole is what is used, and what is free for programs without privileges."""
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return used, used + status.f_bavail * status.f_frsize
