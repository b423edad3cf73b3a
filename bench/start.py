"""Containers a second on one host through the whole system, from the request to the API until each is ready and others
reach it, beside bare containerd and runc; and what a container costs in memory, beside Docker's.

The sides take turns. "At a time" is how many the host itself makes at once (Fairway's `parallel_starts_max`), and how
many callers the peers have.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import runc_limit
from bench.bare_containerd import BareContainerd
from bench.fairway_side import FairwaySide
from bench.process_cost import kernel_mb, pss_mb
from bench.swarm import IMAGE as DOCKER_IMAGE
from bench.swarm import Swarm
from bench.table import Report, Row, quotient
from lab.images import base_root
from lab.layout import LabError

AT_A_TIME = (1, 4, 8)
BAR_AT = 4
COUNT = 40
COMMAND = ["sleep", "1000000"]
RUNS = 3
READY_SECONDS_MAX = 120.0
POLL_SECONDS = 0.1
SETTLE_SECONDS = 4.0
SHARE_MIN = 0.7  # of bare containerd's rate
DOCKER_CALLERS = 4
APP = "start"
Rates = dict[tuple[str, int], list[float]]
Memory = dict[str, tuple[float, float]]  # side -> MB of processes, of the kernel; of one container


def measure(sides: Sequence[str]) -> Report:
    """Memory first, one side alone; then the rates, alternating."""
    rates: Rates = {}
    memory: Memory = {}
    root = base_root()
    if "swarm" in sides:
        with Swarm(root) as docker:
            memory["docker"] = _memory(docker.daemon_pids, lambda: _docker_run(docker))
    with contextlib.ExitStack() as stack:
        starters: dict[str, Callable[[int], float]] = {}
        fairway: FairwaySide | None = None
        if "fairway" in sides:
            fairway = stack.enter_context(FairwaySide(root))
            side = fairway
            side.create(APP, 1, COMMAND)
            _wait(side, 1)
            side.scale(APP, 0)
            _wait(side, 0)
            memory["fairway"] = _memory(side.daemon_pids, lambda: _scale(side, COUNT))
            side.scale(APP, 0)
            _wait(side, 0)
            starters["fairway"] = lambda _: _fairway_seconds(side)
        if "containerd" in sides:
            bare = stack.enter_context(BareContainerd(root))
            starters["containerd"] = lambda at_a_time: bare.start_seconds(COUNT, COMMAND, at_a_time)
        if "runc" in sides:
            starters["runc"] = lambda at_a_time: runc_limit.start_seconds(root, COUNT, COMMAND, at_a_time)
        for run in range(RUNS):
            for at_a_time in AT_A_TIME:
                if fairway is not None:
                    fairway.allow_starts(at_a_time)
                    time.sleep(SETTLE_SECONDS)
                for name, start in starters.items():
                    rate = COUNT / start(at_a_time)
                    rates.setdefault((name, at_a_time), []).append(rate)
                    _progress(f"run {run + 1} of {RUNS}: {name}, {at_a_time} at a time: {rate:.1f} a second")
    return _report(rates, memory)


def _fairway_seconds(side: FairwaySide) -> float:
    """From the request until all are ready; they are removed again."""
    began = time.monotonic()
    _scale(side, COUNT)
    taken = time.monotonic() - began
    side.scale(APP, 0)
    _wait(side, 0)
    return taken


def _scale(side: FairwaySide, count: int) -> None:
    side.scale(APP, count)
    _wait(side, count)


def _wait(side: FairwaySide, count: int) -> None:
    """Until so many are ready; none: until nothing of them is left."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while (side.ready_count(APP) if count else len(side.tasks(APP))) != count:
        if time.monotonic() > deadline:
            raise LabError(f"{count} tasks were not ready within {READY_SECONDS_MAX:.0f} s")
        time.sleep(POLL_SECONDS)


def _docker_run(docker: Swarm) -> None:
    """Plain containers on Docker's own bridge, of no service."""
    with ThreadPoolExecutor(DOCKER_CALLERS) as callers:
        list(callers.map(lambda _: docker.docker("run", "--detach", DOCKER_IMAGE, *COMMAND), range(COUNT)))


def _memory(pids: Callable[[], dict[str, list[int]]], start: Callable[[], None]) -> tuple[float, float]:
    """What COUNT containers add to daemons and shims, and to the kernel: MB of one."""
    time.sleep(SETTLE_SECONDS)
    processes, kernel = pss_mb(_all(pids())), kernel_mb()
    start()
    time.sleep(SETTLE_SECONDS)
    return (pss_mb(_all(pids())) - processes) / COUNT, (kernel_mb() - kernel) / COUNT


def _all(pids: dict[str, list[int]]) -> list[int]:
    """Of the daemons and shims, not of the containers themselves, which are the same everywhere."""
    kinds = ("fairwayd", "dockerd", "containerd", "shims", "docker-proxy")
    return [pid for kind in kinds for pid in pids.get(kind, [])]


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _report(rates: Rates, memory: Memory) -> Report:
    report = Report("start", f"{COUNT} containers on one host, from the request until all are ready, {RUNS} runs")
    for peer, peer_name in (("containerd", "containerd alone"), ("runc", "runc run -d")):
        for at_a_time in AT_A_TIME:
            ours, theirs = rates.get(("fairway", at_a_time), []), rates.get((peer, at_a_time), [])
            share = quotient(ours, theirs)
            bar = f"at least {SHARE_MIN:g}" if peer == "containerd" and at_a_time == BAR_AT else ""
            met = share >= SHARE_MIN if bar and share is not None else None
            what = f"{at_a_time} at a time"
            report.rows.append(Row(what, "containers/s", ours, peer_name, theirs, f"fairway / {peer}", share, bar, met))
    for position, what in enumerate(("daemons and shims, a container", "kernel, a container")):
        mine, other = ([found[position]] if (found := memory.get(name)) else [] for name in ("fairway", "docker"))
        bar = "below Docker's" if position == 0 else ""
        met = mine[0] < other[0] if bar and mine and other else None
        ratio = quotient(other, mine)
        report.rows.append(Row(what, "MB", mine, "docker", other, "docker / fairway", ratio, bar, met))
    report.notes.append(
        "Fairway's containers have an address, names, logs and a place behind a VIP; containerd's and runc's have an\n"
        "empty network, and containerd's a shim each. Memory: PSS that the containers add, without the processes in\n"
        "them; the kernel's is the whole machine's, and tells something only where nothing else runs."
    )
    return report
