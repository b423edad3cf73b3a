"""Which of the things on a host's file systems go: by age, by watermark, or because an operator asks. Pure.

From the high watermark of a file system on, what nobody needs goes, what was unused for longest first, until the low
watermark. What somebody needs never goes, however full it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# Of what a watermark takes: what a task used a moment ago may be what the next one, on its way, needs.
PRESSURE_UNUSED_MS_MIN = 5_000
# What costs less to have again goes first, of things that were unused for equally long.
ORDER = ("partial", "upload", "unpacked", "image", "log", "volume")
WORDS_MAX = 3
CONDITION = "disk use"  # of a host whose disk stays above its high watermark


@dataclass(frozen=True)
class FileSystem:
    """As statvfs(3) has it. `id` is the device's number; `holds` says what of ours is on it."""

    id: int
    path: str
    holds: tuple[str, ...]
    used_bytes: int
    size_bytes: int  # used, and what is free for programs without privileges: as df(1) counts
    inodes_used: int = 0
    inodes: int = 0  # 0: it does not count them

    @property
    def used_percent(self) -> float:
        """Of bytes or of inodes, whichever is scarcer."""
        by_bytes = 100 * self.used_bytes / self.size_bytes if self.size_bytes else 0.0
        return max(by_bytes, 100 * self.inodes_used / self.inodes if self.inodes else 0.0)


@dataclass(frozen=True)
class Item:
    """Something on a file system. Parts that several items share are only free when all of these are gone."""

    kind: str  # "image", "unpacked", "partial", "log", "volume", "upload"
    id: str
    name: str  # for people
    file_system: int
    parts: Mapping[str, int]  # name, unique on the file system -> bytes
    needed_by: str = ""  # why it may not go; empty: it may
    unused_unix_ms: int = 0  # since when nobody needs it
    keep_ms: int | None = None  # goes when it was unused for so long; None: not for its age alone
    by_hand: bool = True  # goes where an operator asks for all of its kind
    by_pressure: bool = True  # goes from the high watermark on

    @property
    def size_bytes(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Going:
    item: Item
    why: str  # "age", "disk", "asked"
    frees_bytes: int  # of it alone: what no other item that stays has


@dataclass(frozen=True)
class GarbagePlan:
    """What goes, in this order; and of file systems that would stay above the low watermark, by how much."""

    going: Sequence[Going]
    short_bytes: Mapping[int, int] = field(default_factory=dict)  # file system -> bytes


def plan(
    file_systems: Iterable[FileSystem],
    items: Sequence[Item],
    now_unix_ms: int,
    high_percent: int,
    low_percent: int,
    asked: Collection[str] = (),
) -> GarbagePlan:
    """`asked`: kinds of which an operator wants all gone that nobody needs."""
    holders = Counter((item.file_system, part) for item in items for part in item.parts)
    needed = {(item.file_system, part) for item in items if item.needed_by for part in item.parts}
    gone: set[tuple[str, str]] = set()
    going: list[Going] = []
    freed: Counter[int] = Counter()

    def take(item: Item, why: str) -> None:
        frees = 0
        for part, size_bytes in item.parts.items():
            holders[item.file_system, part] -= 1
            if not holders[item.file_system, part]:
                frees += size_bytes
        gone.add((item.kind, item.id))
        going.append(Going(item, why, frees))
        freed[item.file_system] += frees

    def frees_nothing(item: Item) -> bool:
        return bool(item.parts) and all((item.file_system, part) in needed for part in item.parts)

    free = sorted(
        (item for item in items if not item.needed_by and not frees_nothing(item)),
        key=lambda i: (i.unused_unix_ms, ORDER.index(i.kind), i.id),
    )
    for item in free:
        if item.by_hand and item.kind in asked:
            take(item, "asked")
        elif item.keep_ms is not None and now_unix_ms - item.unused_unix_ms >= item.keep_ms:
            take(item, "age")
    short: dict[int, int] = {}
    for each in file_systems:
        if each.used_percent < high_percent:
            continue
        goal_bytes = _goal_bytes(each, low_percent)
        for item in free:
            if freed[each.id] >= goal_bytes:
                break
            unused_ms = now_unix_ms - item.unused_unix_ms
            if item.file_system != each.id or not item.by_pressure or unused_ms < PRESSURE_UNUSED_MS_MIN:
                continue
            if (item.kind, item.id) not in gone:
                take(item, "disk")
        if freed[each.id] < goal_bytes:
            short[each.id] = goal_bytes - freed[each.id]
    return GarbagePlan(going, short)


def _goal_bytes(file_system: FileSystem, low_percent: int) -> int:
    """To be freed until the low watermark. How many inodes go with how many bytes nobody knows: all of it then, and
    who carries it out stops when it is enough."""
    if file_system.inodes and 100 * file_system.inodes_used > low_percent * file_system.inodes:
        return file_system.size_bytes
    return max(0, file_system.used_bytes - file_system.size_bytes * low_percent // 100)


def reclaimable_bytes(items: Sequence[Item]) -> dict[str, int]:
    """By kind: what goes with all items of the kind that nobody needs, and with no other."""
    by_kind: dict[str, int] = {}
    for kind in {item.kind for item in items}:
        staying = {
            (item.file_system, part) for item in items if item.kind != kind or item.needed_by for part in item.parts
        }
        parts = {
            (item.file_system, part): size_bytes
            for item in items
            if item.kind == kind and not item.needed_by
            for part, size_bytes in item.parts.items()
            if (item.file_system, part) not in staying
        }
        by_kind[kind] = sum(parts.values())
    return by_kind


def what_holds(items: Iterable[Item], file_system: int) -> str:
    """Why no more of a file system can be freed: the reasons that keep most, without numbers that change."""
    kept: Counter[str] = Counter()
    for item in items:
        if item.file_system == file_system and item.needed_by:
            kept[f"{item.kind}s: {item.needed_by}"] += item.size_bytes
    return "; ".join(sorted(words for words, _ in kept.most_common(WORDS_MAX)))
