"""Which windows of a measurement were disturbed by others on the machine: the fewer the better the numbers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.process_cost import cpu_seconds

FOREIGN_SHARE_CALM = 0.05  # of all processors; below it a round counts as undisturbed
ROUNDS_FACTOR_MAX = 3  # rounds tried at most, per round wanted

T = TypeVar("T")


def calmest(rounds: int, pids: Callable[[], Sequence[int]], run: Callable[[], T]) -> tuple[list[T], float]:
    """Runs rounds until `rounds` were calm, or ROUNDS_FACTOR_MAX times as many; the calmest, and the median share of
    the machine that others used during those. `pids`: the processes measured, besides this one."""
    found: list[tuple[float, int, T]] = []
    for number in range(rounds * ROUNDS_FACTOR_MAX):
        before, began = _foreign_seconds(pids()), time.monotonic()
        result = run()
        capacity = (time.monotonic() - began) * (os.cpu_count() or 1)
        found.append((max(_foreign_seconds(pids()) - before, 0.0) / capacity, number, result))
        if sum(share < FOREIGN_SHARE_CALM for share, _, _ in found) >= rounds:
            break
    kept = sorted(found, key=lambda one: one[:2])[:rounds]
    return [result for _, _, result in kept], kept[len(kept) // 2][0]


def _foreign_seconds(pids: Sequence[int]) -> float:
    """Processor time of everything else until now (proc(5): user, nice, system, idle, iowait, irq, softirq, steal)."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return busy - cpu_seconds([*pids, os.getpid()])
