"""What the simulator did and how often: names of all that is counted, so that what never happens is seen.

Each name says what really happened, not what was planned: a disk that is full counts where a write failed for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from raft.simulation.plan import FAULTS

GROUPS: dict[str, tuple[str, ...]] = {
    "messages": (
        "messages",
        "messages lost",
        "messages delayed by 50 ms and more",
        "messages that overtook others",
        "messages repeated",
        "messages lost by a partition",
        "messages held by a partition",
        "connections broken",
        "messages lost with a connection",
        "messages behind the next connection's",
        "messages of long ago again",
        "messages of strangers",
        "messages before the sender's own write",
        "pieces of snapshots",
        "pieces of snapshots damaged",
    ),
    "disks": (
        "power cuts",
        "power cuts at begin",
        "power cuts at insert",
        "power cuts at delete",
        "power cuts at update",
        "power cuts at commit",
        "power cuts at commit that got to the disk",
        "power cuts after early messages",
        "power cuts between messages",
        "power cuts that tore files",
        "stops for a full disk",
        "stops for a disk's error",
        "damaged disks refused",
        "disks lost",
        "disks of voters lost",
        "slow writes",
    ),
    "hosts": (
        "slow turns",
        "runs with clocks that drift",
        "stops of older builds",
        "runs that lost a majority's disks",
    ),
    "log": (
        "elections won",
        "entries committed",
        "large entries committed",
        "commands that make no sense committed",
        "changes of the voters committed",
        "snapshots installed",
    ),
    "clients": (
        "operations acknowledged",
        "operations without outcome",
        "parts of chains acknowledged",
        "current reads",
        "histories judged",
        "histories too complex to judge",
    ),
    "planned faults": tuple(f"fault {kind}" for kind in FAULTS),
}
NAMES = frozenset(name for names in GROUPS.values() for name in names)
NEVER_WANTED = frozenset({"histories too complex to judge", "runs that lost a majority's disks"})


def missing(counts: Mapping[str, int]) -> list[str]:
    """What should have happened and never did."""
    return sorted(name for name in NAMES - NEVER_WANTED if not counts.get(name))


def table(counts: Mapping[str, int]) -> str:
    """All counts, by group, in columns that a person can read."""
    lines: list[str] = []
    for group, names in GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {counts.get(name, 0):>10}  {name.removeprefix('fault ')}" for name in names]
    return "\n".join(lines)
