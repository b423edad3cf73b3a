"""From `deploy` returning control to N tasks running on one host, beside Docker Swarm and bare runc."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from bench import runc_limit
from bench.fairway_side import FairwaySide
from bench.swarm import Swarm
from bench.table import Report, Row, quotient
from lab.images import base_root
from lab.layout import LabError

COUNTS = (1, 10, 50)
COMMAND = ["sleep", "1000000"]
RUNS = 3
RUNNING_SECONDS_MAX = 180.0
POLL_SECONDS = 0.1
SWARM_RATIO_MIN = 2.0  # Swarm's time / Fairway's
LIMIT_SHARE_MIN = 0.5  # Fairway's rate / the limit's


class Orchestrator(Protocol):
    """The two sides, as this benchmark uses them."""

    def create(self, name: str, count: int, command: list[str]) -> None: ...
    def running_count(self, name: str) -> int: ...
    def remove(self, name: str) -> None: ...


def time_one(side: Orchestrator, name: str, count: int) -> tuple[float, float]:
    """Seconds to `count` running tasks: since the command returned, and since it was started."""
    started = time.monotonic()
    side.create(name, count, COMMAND)
    returned = time.monotonic()
    try:
        while side.running_count(name) < count:
            if time.monotonic() - returned > RUNNING_SECONDS_MAX:
                raise LabError(f"{count} tasks did not all run within {RUNNING_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)
        now = time.monotonic()
    finally:
        side.remove(name)
    return now - returned, now - started


def measure(sides: Sequence[str]) -> Report:
    """Alternates the sides, RUNS times for each count, and quotes medians."""
    root = base_root()
    since_return: dict[tuple[str, int], list[float]] = {}
    since_start: dict[tuple[str, int], list[float]] = {}
    with contextlib.ExitStack() as stack:
        orchestrators: dict[str, Orchestrator] = {}
        if "swarm" in sides:
            orchestrators["swarm"] = stack.enter_context(Swarm(root))
        if "fairway" in sides:
            orchestrators["fairway"] = stack.enter_context(FairwaySide(root))
        for run in range(RUNS):
            for count in COUNTS:
                for side_name, side in orchestrators.items():
                    returned, started = time_one(side, f"n{count}r{run}", count)
                    since_return.setdefault((side_name, count), []).append(returned)
                    since_start.setdefault((side_name, count), []).append(started)
                    _progress(f"run {run + 1} of {RUNS}: {side_name}, {count} tasks: {returned:.2f} s")
                if "runc" in sides:
                    seconds = runc_limit.start_seconds(root, count, COMMAND)
                    since_return.setdefault(("runc", count), []).append(seconds)
                    _progress(f"run {run + 1} of {RUNS}: runc, {count} containers: {seconds:.2f} s")
    return _report(since_return, since_start)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _report(
    since_return: dict[tuple[str, int], list[float]], since_start: dict[tuple[str, int], list[float]]
) -> Report:
    report = Report("deploy", f"From `deploy` returning to N tasks running, one host, medians of {RUNS} runs")
    for count in COUNTS:
        ours, swarm = since_return.get(("fairway", count), []), since_return.get(("swarm", count), [])
        ratio = quotient(swarm, ours)
        bar = f"at least {SWARM_RATIO_MIN:g}" if count >= 10 else ""
        met = ratio >= SWARM_RATIO_MIN if bar and ratio is not None else None
        what = f"{count} running, since the command returned"
        report.rows.append(Row(what, "s", ours, "swarm", swarm, "swarm / fairway", ratio, bar, met))
        ours, swarm = since_start.get(("fairway", count), []), since_start.get(("swarm", count), [])
        what = f"{count} running, since the command was started"
        report.rows.append(Row(what, "s", ours, "swarm", swarm, "swarm / fairway", quotient(swarm, ours)))
    for count in COUNTS[1:]:
        limit = [count / seconds for seconds in since_return.get(("runc", count), []) if seconds]
        for times, words in ((since_return, "since the command returned"), (since_start, "the command included")):
            ours = [count / seconds for seconds in times.get(("fairway", count), []) if seconds]
            ratio = quotient(ours, limit)
            bar = f"at least {LIMIT_SHARE_MIN:g}" if count == 50 and times is since_return else ""
            met = ratio >= LIMIT_SHARE_MIN if bar and ratio is not None else None
            peer, name = "runc run -d, 4 at a time", "fairway / runc"
            report.rows.append(Row(f"{count} tasks, {words}", "tasks/s", ours, peer, limit, name, ratio, bar, met))
    report.notes.append(
        "Swarm: Debian's docker.io, single node, --no-resolve-image, offline images, no published ports, tasks on\n"
        "its default bridge. The same root file system everywhere. runc: no network, no image, no supervision."
    )
    return report
