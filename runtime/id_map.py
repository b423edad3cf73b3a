"""Numbers of users and groups inside and outside of a user namespace (user_namespaces(7))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NOBODY = 65_534  # what the kernel says of those that are not mapped


@dataclass(frozen=True)
class IdMap:
    """Rows of (first inside, first outside, count)."""

    rows: tuple[tuple[int, int, int], ...]

    @classmethod
    def of_process(cls, process_id: int, kind: str) -> IdMap:
        """`kind` is "uid" or "gid". Raises OSError where the process is gone."""
        lines = Path(f"/proc/{process_id}/{kind}_map").read_text().splitlines()
        rows = [tuple(int(word) for word in line.split()) for line in lines]
        return cls(tuple((row[0], row[1], row[2]) for row in rows if len(row) == 3))

    def inside(self, number: int) -> int:
        found = (inside + number - outside for inside, outside, count in self.rows if 0 <= number - outside < count)
        return next(found, NOBODY)

    def outside(self, number: int) -> int:
        found = (outside + number - inside for inside, outside, count in self.rows if 0 <= number - inside < count)
        return next(found, NOBODY)
