"""What a host can be short of, or can have broken: when it is said, and what follows from it. Pure.

A condition begins at one mark and ends at another one that is further away, so that a host at the edge does not say
one thing and then the other. Pressure Stall Information (PSI: docs.kernel.org/accounting/psi.html) is the share of the
time in which work waited; where the kernel has none of it, amounts alone decide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from proto.objects_pb2 import Node, NodeCondition

MEMORY, CPU, DISK, PIDS = "memory pressure", "CPU pressure", "disk pressure", "PID pressure"
READ_ONLY, FAILING, CONTAINERD, CLOCK = "read-only file system", "file system", "containerd", "clock skew"

# What keeps new tasks away: what such a host has, and what would end it.
BARRING = {
    MEMORY: (
        "hardly any memory to spare",
        "have tasks on {host} use less memory, or move some away with `fairway node drain {host}`",
    ),
    DISK: ("a disk that is nearly full", "make room on {host}: images, logs and volumes that nobody needs"),
    PIDS: (
        "hardly any processes left to start",
        "end programs on {host} that have very many threads, or raise kernel.pid_max",
    ),
    READ_ONLY: ("a read-only file system", "mount it writable on {host}; dmesg says why it is not"),
    FAILING: ("a file system that fails", "look at the disk of {host}: dmesg says what fails"),
    CONTAINERD: ("a containerd that does not answer", "look at `systemctl status containerd` on {host}"),
    CLOCK: ("a clock that is wrong", "have chrony or systemd-timesyncd set the clock of {host}"),
}
# Of these, tasks are better off elsewhere as well.
LEAVING = frozenset({MEMORY, DISK, PIDS, READ_ONLY, FAILING, CONTAINERD})

MEMORY_FRACTION, MEMORY_FRACTION_ENDS = 0.04, 0.07  # available
MEMORY_STALLED, MEMORY_STALLED_ENDS = 0.25, 0.10  # of a minute, all work at once
CPU_STALLED, CPU_STALLED_ENDS = 0.90, 0.75  # of five minutes, some work
DISK_FRACTION, DISK_FRACTION_ENDS = 0.04, 0.07  # free; inodes likewise
PIDS_FRACTION, PIDS_FRACTION_ENDS = 0.90, 0.80  # used
CONTAINERD_SILENT_S = 10.0  # it is started anew in less
CLOCK_SKEW_MS, CLOCK_SKEW_ENDS_MS = 5_000, 3_000


@dataclass(frozen=True)
class FileSystem:
    """`where`: what fairwayd has there, in words. Fractions are of what is free. `error`: of a write that failed."""

    where: str
    free: float = 1.0
    inodes_free: float = 1.0
    read_only: bool = False
    error: str = ""


@dataclass(frozen=True)
class Readings:
    """Of one look at a host; what could not be read has its default, which is no condition."""

    memory_available: float = 1.0
    memory_stalled: float = 0.0
    cpu_stalled: float = 0.0
    pids_used: float = 0.0
    file_systems: Sequence[FileSystem] = ()
    containerd_error: str = ""
    containerd_silent_s: float = 0.0


def conditions_of(readings: Readings, holding: Collection[str]) -> list[NodeCondition]:
    """What is wrong now, at most one of a kind. `holding`: the kinds that held at the look before."""

    def beyond(kind: str, value: float, begins: float, ends: float) -> bool:
        return value >= (ends if kind in holding else begins)

    def below(kind: str, value: float, begins: float, ends: float) -> bool:
        return value <= (ends if kind in holding else begins)

    found: dict[str, str] = {}
    if below(MEMORY, readings.memory_available, MEMORY_FRACTION, MEMORY_FRACTION_ENDS):
        found[MEMORY] = "hardly any memory is available"
    elif beyond(MEMORY, readings.memory_stalled, MEMORY_STALLED, MEMORY_STALLED_ENDS):
        found[MEMORY] = "programs wait for memory much of the time"
    if beyond(CPU, readings.cpu_stalled, CPU_STALLED, CPU_STALLED_ENDS):
        found[CPU] = "programs wait for a CPU nearly all of the time"
    if beyond(PIDS, readings.pids_used, PIDS_FRACTION, PIDS_FRACTION_ENDS):
        found[PIDS] = "the kernel has hardly any process or thread left to give"
    for each in readings.file_systems:
        if below(DISK, each.free, DISK_FRACTION, DISK_FRACTION_ENDS):
            found.setdefault(DISK, f"{each.where} is nearly full")
        if below(DISK, each.inodes_free, DISK_FRACTION, DISK_FRACTION_ENDS):
            found.setdefault(DISK, f"{each.where} has hardly any inodes left")
        if each.read_only:
            found.setdefault(READ_ONLY, f"{each.where} cannot be written to")
        elif each.error:
            found.setdefault(FAILING, f"{each.where}: {each.error}")
    if readings.containerd_error and readings.containerd_silent_s >= CONTAINERD_SILENT_S:
        found[CONTAINERD] = "containerd does not answer"
    return [NodeCondition(kind=kind, message=message) for kind, message in found.items()]


def clock_condition(ahead_ms: float, uncertain_ms: float, holding: bool) -> list[NodeCondition]:
    """The host's clock is so far ahead of the leader's (below zero: behind), give or take `uncertain_ms`."""
    least_ms = abs(ahead_ms) - uncertain_ms
    if least_ms < (CLOCK_SKEW_ENDS_MS if holding else CLOCK_SKEW_MS):
        return []
    words = "ahead of" if ahead_ms > 0 else "behind"
    return [NodeCondition(kind=CLOCK, message=f"the clock is seconds or more {words} the leader's")]


def barring(node: Node) -> list[str]:
    """The kinds of its conditions that keep new tasks from the host."""
    return [each.kind for each in node.conditions if each.kind in BARRING]


def left_since_unix_ms(node: Node) -> int | None:
    """Since when the host has had a condition that tasks had better leave for; None: it has none."""
    return min((each.since_unix_ms for each in node.conditions if each.kind in LEAVING), default=None)
