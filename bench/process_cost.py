"""What processes cost: proportional memory and CPU, as the kernel counts them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from lab.processes import mark, namespace_pids


def pss_mb(pids: Sequence[int]) -> float:
    """Sum of the proportional set sizes in megabytes (smaps_rollup, proc(5)); gone processes count 0."""
    total_kib = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total_kib * 1024 / 1e6


def shims_beside(pid: int) -> list[int]:
    """Shims of containerd in the same PID namespace as a process."""
    found = []
    for inner in namespace_pids(mark(pid)).values():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{inner}/comm").read_text().startswith("containerd-shim"):
                found.append(inner)
    return found


def kernel_mb() -> float:
    """What the kernel of this machine keeps for itself: slabs, stacks, page tables, per-CPU data (proc(5), meminfo)."""
    kinds = ("Slab:", "KernelStack:", "PageTables:", "Percpu:")
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) * 1024 / 1e6


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes until now, without their children's."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_percent(groups: Sequence[Sequence[int]], seconds: float) -> list[float]:
    """Per group of processes, per cent of one core over the next `seconds`."""
    before = [cpu_seconds(group) for group in groups]
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return [(cpu_seconds(group) - start) / took * 100 for group, start in zip(groups, before, strict=True)]
