"""A rolling update of ten tasks on one host, two at a time, beside Docker Swarm: until every task is the new one."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from bench.fairway_side import FairwaySide
from bench.swarm import Swarm
from bench.table import Report, Row, quotient
from lab.images import base_root
from lab.layout import LabError

REPLICAS = 10
PARALLELISM = 2
COMMAND = ["sleep", "1000000"]
ORDERS = ("start-first", "stop-first")
COMPARISONS = (  # what, Fairway's order, Swarm's, whether there is a bar
    ("each in the order it has by itself", "start-first", "stop-first", True),
    ("start-first", "start-first", "start-first", True),
    ("stop-first", "stop-first", "stop-first", False),
)
RUNS = 3
DONE_SECONDS_MAX = 180.0
POLL_SECONDS = 0.05
REST_SECONDS = 6.0  # Swarm watches an update for 5 s after its end, and takes the next only then
SWARM_RATIO_MIN = 2.0  # Swarm's time / Fairway's


class Orchestrator(Protocol):
    """The two sides, as this benchmark uses them."""

    def roll(self, name: str, count: int, command: list[str], round: str, parallelism: int, order: str) -> None: ...
    def rounds_running(self, name: str) -> dict[str, int]: ...
    def remove(self, name: str) -> None: ...


def time_one(side: Orchestrator, name: str, round: str, order: str) -> tuple[float, float]:
    """Seconds until all tasks that run are of the round: since the command returned, and since it was started."""
    started = time.monotonic()
    side.roll(name, REPLICAS, COMMAND, round, PARALLELISM, order)
    returned = time.monotonic()
    while (running := side.rounds_running(name)) != {round: REPLICAS}:
        if time.monotonic() - returned > DONE_SECONDS_MAX:
            raise LabError(f"after {DONE_SECONDS_MAX:.0f} s tasks of these rounds run: {running}")
        time.sleep(POLL_SECONDS)
    now = time.monotonic()
    return now - returned, now - started


def measure(sides: Sequence[str]) -> Report:
    """Alternates the sides, RUNS times for each order, and quotes medians."""
    root = base_root()
    since_return: dict[tuple[str, str], list[float]] = {}
    since_start: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        orchestrators: dict[str, Orchestrator] = {}
        if "swarm" in sides:
            orchestrators["swarm"] = stack.enter_context(Swarm(root))
        if "fairway" in sides:
            orchestrators["fairway"] = stack.enter_context(FairwaySide(root))
        for side in orchestrators.values():
            time_one(side, "rolled", "first", ORDERS[0])
        for run in range(RUNS):
            for order in ORDERS:
                for name, side in orchestrators.items():
                    time.sleep(REST_SECONDS)
                    returned, started = time_one(side, "rolled", f"{order}-{run}", order)
                    since_return.setdefault((name, order), []).append(returned)
                    since_start.setdefault((name, order), []).append(started)
                    print(f"run {run + 1} of {RUNS}: {name}, {order}: {returned:.2f} s", file=sys.stderr, flush=True)
        for side in orchestrators.values():
            side.remove("rolled")
    return _report(since_return, since_start)


def _report(
    since_return: dict[tuple[str, str], list[float]], since_start: dict[tuple[str, str], list[float]]
) -> Report:
    title = f"A rolling update of {REPLICAS} tasks, {PARALLELISM} at a time, one host, medians of {RUNS} runs"
    report = Report("rollout", title)
    for words, times in (("since the command returned", since_return), ("the command included", since_start)):
        for what_order, our_order, swarm_order, barred in COMPARISONS:
            ours, swarm = times.get(("fairway", our_order), []), times.get(("swarm", swarm_order), [])
            ratio = quotient(swarm, ours)
            bar = f"at least {SWARM_RATIO_MIN:g}" if barred and times is since_return else ""
            met = ratio >= SWARM_RATIO_MIN if bar and ratio is not None else None
            what = f"{what_order}, {words}"
            report.rows.append(Row(what, "s", ours, "swarm", swarm, "swarm / fairway", ratio, bar, met))
    report.notes.append(
        "Until all tasks of the new version run and none of the old. Swarm: Debian's docker.io, single node,\n"
        "--no-resolve-image, offline images, its default bridge only, delay 0. No health checks: Fairway relies\n"
        "on a new task when it has been ready for 0.3 s, Swarm as soon as it runs. A task of Fairway lingers for\n"
        "1.2 s before it stops, when no balancer sends to it any more: most of the time of stop-first. Grace\n"
        "period 0 s on both sides."
    )
    return report
