"""Whether an inventory shows a leak, against the first of the same desired state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from daemon.orchestration.task_plan import HISTORY_PER_SLOT_MAX
from net.ruleset_plan import GONE_MAX
from raft.settings import RaftSettings
from tests.churn.inventory import (
    CONTAINERD_MEMORY,
    DATABASE_BYTES,
    LOG_BYTES,
    LOG_ENTRIES,
    LOG_FOLDERS,
    MEMORY,
    MEMORY_OWN,
    TASK_RECORDS,
    Inventory,
)
from tests.churn.kernel import GONE_ELEMENTS

MEMORY_GROWTH_MAX = 0.10
DATABASE_BYTES_MAX = 96 << 20  # of one host: kept log, state, and what of the file is free again
# Fewer of these than this are no leak: connections and threads come with what is under way, and go when they are idle.
# containerd removes the folder of a snapshot a while after the snapshot. A chain that draws one of so many backends
# stays when a service has had so many.
PASSING_MAX = {
    "fairwayd descriptors": 12,
    "fairwayd threads": 12,
    "processes": 6,
    "folders of snapshots": 3,
    "files in /var/lib/fairway": 3,
    "nftables chains": 12,
    "nftables rules": 24,
}
# How tasks are spread over hosts and shims decides these (a host has rules for the networks of its own tasks), so only
# an empty cluster's are the same each time. A leak of one a task is soon more than a share of them.
BY_SPREAD = (
    "processes",
    "sockets of shims",
    "mounts",
    "nftables chains",
    "nftables rules",
    "nftables elements",
    "files in /run/fairway",
    "fairwayd descriptors",
    "fairwayd threads",
)
BY_SPREAD_SHARE_MAX = 0.5
_NOT_COUNTS = (MEMORY, MEMORY_OWN, CONTAINERD_MEMORY, LOG_BYTES, DATABASE_BYTES, LOG_ENTRIES)


def leaks(first: Inventory, now: Inventory, slots: int) -> list[str]:
    """What has grown, in words. `slots`: replicas of all services, whose last tasks are remembered."""
    before, after = first.total(), now.total()
    remembered_max = slots * (1 + HISTORY_PER_SLOT_MAX)
    voters = sum(TASK_RECORDS in counts for counts in now.hosts.values())
    maxima = {
        TASK_RECORDS: voters * remembered_max,
        LOG_FOLDERS: remembered_max,
        GONE_ELEMENTS: len(now.hosts) * GONE_MAX,
        LOG_ENTRIES: voters * 2 * RaftSettings.log_entries_kept_max,
        DATABASE_BYTES: voters * DATABASE_BYTES_MAX,
    }
    found = [
        f"fairwayd of {host} has ended and was started again"
        for host, process in now.daemons.items()
        if process != first.daemons.get(host)
    ]
    for name in sorted(after):
        if name in maxima:
            most = maxima[name]
        elif name in _NOT_COUNTS:
            continue
        else:
            most = before.get(name, 0) + _allowed(name, before.get(name, 0), empty=slots == 0)
        if after[name] > most:
            found.append(f"{name}: {after[name]}, at first {before.get(name, 0)}, at most {most} expected")
    return found


def _allowed(name: str, before: int, empty: bool) -> int:
    passing = next((count for prefix, count in PASSING_MAX.items() if name.startswith(prefix)), 0)
    spread = not empty and name.startswith(BY_SPREAD)
    return passing + (int(before * BY_SPREAD_SHARE_MAX) if spread else 0)


def grown_memory(inventories: Sequence[Inventory]) -> list[str]:
    """Hosts whose fairwayd has grown by more than MEMORY_GROWTH_MAX, in words: from when the log that members keep
    was as long as it gets, for until then it fills what it may have, else from the first; to the last."""
    first = next((each for each in inventories[:-1] if _log_is_full(each)), inventories[0])
    last = inventories[-1]
    return [
        f"{MEMORY} of {host}: {counts[MEMORY] >> 10} MiB, at first {first.hosts[host][MEMORY] >> 10} MiB"
        for host, counts in last.hosts.items()
        if counts[MEMORY] > first.hosts[host][MEMORY] * (1 + MEMORY_GROWTH_MAX)
    ]


def _log_is_full(inventory: Inventory) -> bool:
    lengths = [counts[LOG_ENTRIES] for counts in inventory.hosts.values() if LOG_ENTRIES in counts]
    return bool(lengths) and min(lengths) >= RaftSettings.log_entries_kept_max


def table(columns: Iterable[tuple[str, Inventory]]) -> str:
    """A line for each count, summed over the hosts, a column for each inventory; memory a line for each host."""
    titled = list(columns)
    lines = [["", *(title for title, _ in titled)]]
    totals = [inventory.total() for _, inventory in titled]
    names = {name for total in totals for name in total} - {MEMORY, MEMORY_OWN, CONTAINERD_MEMORY}
    lines += [[name, *(str(total.get(name, 0)) for total in totals)] for name in sorted(names)]
    for name in (MEMORY, MEMORY_OWN, CONTAINERD_MEMORY):
        for host in titled[0][1].hosts:
            cells = (f"{_of(inventory.hosts[host], name) / 1024:.1f}" for _, inventory in titled)
            lines.append([f"{name} of {host}, MiB", *cells])
    lines.append(["leader", *(inventory.leader for _, inventory in titled)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(titled) + 1)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _of(counts: Mapping[str, int], name: str) -> int:
    return counts.get(name, 0)
