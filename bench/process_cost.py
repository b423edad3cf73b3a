"""What processes cost: proportional memory and CPU, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path


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
