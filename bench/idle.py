"""Memory and CPU of fairwayd, idle and with 50 tasks, beside dockerd and its containerd."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from bench.deploy import COMMAND, RUNNING_SECONDS_MAX
from bench.fairway_side import FairwaySide
from bench.process_cost import cpu_percent, pss_mb
from bench.swarm import Swarm
from bench.table import Report, Row, quotient
from lab.images import base_root
from lab.layout import LabError

SETTLE_SECONDS = 5.0
WATCH_SECONDS = 20.0
TASK_COUNT = 50
PSS_MB_MAX = 120.0
CPU_PERCENT_MAX = 2.0
POLL_SECONDS = 0.1
APP = "idle"
OWN_DAEMON = {"fairway": "fairwayd", "swarm": "dockerd"}


class Measured(Protocol):
    """The two sides, as this benchmark uses them."""

    def create(self, name: str, count: int, command: list[str]) -> None: ...
    def running_count(self, name: str) -> int: ...
    def daemon_pids(self) -> dict[str, list[int]]: ...


def measure(sides: Sequence[str]) -> Report:
    """One side after the other, so that neither uses the CPU while the other is watched."""
    costs: dict[tuple[str, str, str], tuple[float, float]] = {}  # side, moment, process -> MB, per cent
    makers: dict[str, type[FairwaySide] | type[Swarm]] = {"fairway": FairwaySide, "swarm": Swarm}
    for name, make in makers.items():
        if name not in sides:
            continue
        with contextlib.ExitStack() as stack:
            entered = make(base_root())
            stack.enter_context(entered)
            side: Measured = entered
            costs |= _watch(name, "idle", side)
            side.create(APP, TASK_COUNT, COMMAND)
            _wait_running(side)
            costs |= _watch(name, f"with {TASK_COUNT} tasks", side)
    return _report(costs)


def _wait_running(side: Measured) -> None:
    deadline = time.monotonic() + RUNNING_SECONDS_MAX
    while side.running_count(APP) < TASK_COUNT:
        if time.monotonic() > deadline:
            raise LabError(f"{TASK_COUNT} tasks did not all run within {RUNNING_SECONDS_MAX:.0f} s")
        time.sleep(POLL_SECONDS)


def _watch(name: str, moment: str, side: Measured) -> dict[tuple[str, str, str], tuple[float, float]]:
    time.sleep(SETTLE_SECONDS)
    pids = side.daemon_pids()
    kinds = [OWN_DAEMON[name], "containerd"]
    used = cpu_percent([pids.get(kind, []) for kind in kinds], WATCH_SECONDS)
    found = {}
    for kind, percent in zip(kinds, used, strict=True):
        found[(name, moment, kind)] = (pss_mb(pids.get(kind, [])), percent)
        print(f"{name} {moment}: {kind} {found[(name, moment, kind)]}", file=sys.stderr, flush=True)
    return found


def _report(costs: dict[tuple[str, str, str], tuple[float, float]]) -> Report:
    report = Report("idle", f"Memory and CPU of the daemons over {WATCH_SECONDS:.0f} s")
    for moment in ("idle", f"with {TASK_COUNT} tasks"):
        for ours, theirs in (("fairwayd", "dockerd"), ("containerd", "containerd")):
            us, peer = costs.get(("fairway", moment, ours)), costs.get(("swarm", moment, theirs))
            has_bar = ours == "fairwayd" and moment == "idle"
            for position, unit, limit in ((0, "MB PSS", PSS_MB_MAX), (1, "% of a core", CPU_PERCENT_MAX)):
                mine = [us[position]] if us else []
                other = [peer[position]] if peer else []
                report.rows.append(
                    Row(
                        f"{ours} {moment}",
                        unit,
                        mine,
                        theirs,
                        other,
                        f"{theirs} / {ours}",
                        quotient(other, mine),
                        f"at most {limit:g} {unit}" if has_bar else "",
                        mine[0] <= limit if has_bar and mine else None,
                    )
                )
    report.notes.append("The containerd beside fairwayd is Debian's service; dockerd starts one of its own.")
    return report
