"""How soon a killed container is gone from every host's balancer, and what 1,000 services of 10 tasks cost a host."""

from __future__ import annotations

import contextlib
import json
import math
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from bench.fairway_side import FairwaySide
from bench.programs import output_of
from bench.table import Report, Row
from lab.images import base_root
from lab.layout import LabError
from proto import objects_pb2

HOSTS = 3
REPLICAS = 9
KILLS = 34  # of 3 hosts each: the 99th percentile is not the worst of them
GONE_MS_MAX = 500.0
CHANGE_MS_MAX = 10.0
SCALE_RUNS = 3
WAIT_SECONDS_MAX = 60.0
SETTLE_SECONDS = 0.2  # with nothing heard, a transaction is over
_APP = """name: endpoints
services:
  web:
    image: bench:1
    command: [sleep, '1000000']
    stop_grace_period: 0s
    deploy: {replicas: %d, restart_policy: {delay: 100ms, window: 1s}}
"""
# nft monitor: "add element inet fairway_fw backends { 10.120.0.1 . 0x00000002 : 10.112.1.5 }"
_LINE = re.compile(r"(?P<verb>add|delete) element \S+ \S+ backends \{ (?P<key>[^:]+) : (?P<backend>\S+) \}")
_LISTED = re.compile(r"([\d.]+ \. 0x[0-9a-f]+|[\d.]+ \. \d+) : ([\d.]+)")


class Watch:
    """One host's map of backends, followed by `nft monitor`."""

    def __init__(self, side: FairwaySide, host: str) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, str] = {}
        self._gone_s: dict[str, float] = {}  # backend -> when its last slot went
        self._process = side.lab.popen(
            host,
            ["stdbuf", "-oL", "nft", "monitor", "elements"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._follow, daemon=True).start()
        time.sleep(SETTLE_SECONDS)
        listed = side.lab.run_in(host, ["nft", "list", "table", "inet", "fairway_fw"]).stdout
        table = listed.partition("map backends {")[2].partition("\n\t}")[0]
        with self._lock:
            self._slots |= {_slot(key): backend for key, backend in _LISTED.findall(table)}

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now_s = time.monotonic()
            found = _LINE.search(line)
            if found is None:
                continue
            with self._lock:
                if found["verb"] == "add":
                    self._slots[_slot(found["key"])] = found["backend"]
                elif self._slots.get(_slot(found["key"])) == found["backend"]:
                    del self._slots[_slot(found["key"])]
                    self._gone_s[found["backend"]] = now_s

    def gone_s(self, backend: str) -> float | None:
        """When the backend's last slot went; None while it has one."""
        with self._lock:
            return None if backend in self._slots.values() else self._gone_s.get(backend)

    def has(self, backend: str) -> bool:
        with self._lock:
            return backend in self._slots.values()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _slot(key: str) -> str:
    """ "10.120.0.1 . 0x00000002" and "10.120.0.1 . 2" are the same."""
    vip, _, number = key.strip().partition(" . ")
    return f"{vip} {int(number, 0)}"


def measure(sides: Sequence[str]) -> Report:
    """`sides` is of no meaning here: there is only one."""
    gone_ms = _kills()
    scales = [_scale() for _ in range(SCALE_RUNS)]
    report = Report(
        "endpoints", f"Balancers that follow: {KILLS} kills on {HOSTS} hosts; {SCALE_RUNS} runs of the rest"
    )
    late = sorted(gone_ms)[math.ceil(len(gone_ms) * 0.99) - 1]
    row = Row(
        "container killed to gone from a host's balancer, p50", "ms", [statistics.median(gone_ms)], "", [], "", None
    )
    report.rows.append(row)
    bar = f"at most {GONE_MS_MAX:g} ms"
    row = Row("the same, p99", "ms", [late], "worst", [max(gone_ms)], "", None, bar, late <= GONE_MS_MAX)
    report.rows.append(row)
    whole = [each["whole"]["all"] * 1000 for each in scales]
    kernel = [each["whole"]["plan_and_kernel"] * 1000 for each in scales]
    report.rows.append(Row("1,000 services x 10 from nothing", "ms", whole, "of it plan, kernel", kernel, "", None))
    change = [each["change"]["all"] * 1000 for each in scales]
    kernel = [each["change"]["plan_and_kernel"] * 1000 for each in scales]
    bar, met = f"under {CHANGE_MS_MAX:g} ms", statistics.median(change) < CHANGE_MS_MAX
    report.rows.append(Row("one change among them", "ms", change, "of it plan, kernel", kernel, "", None, bar, met))
    report.notes.append(
        "Killed: SIGKILL to the first process, until the host's kernel says that the backend's last slot went.\n"
        "The rest: CPU time, the kernel's included, of all that a host does from the leader's delta on."
    )
    return report


def _kills() -> list[float]:
    with FairwaySide(base_root(), host_count=HOSTS) as side, contextlib.ExitStack() as stack:
        side.deploy("endpoints", _APP % REPLICAS)
        names = {node.meta.id: node.meta.name for node in side.nodes()}
        watches = [stack.enter_context(contextlib.closing(Watch(side, host))) for host in side.lab.hosts()]
        found: list[float] = []
        counts: dict[int, int] = {}
        for _ in range(KILLS):
            task = _next(side, watches, counts)
            found += _kill(side, watches, task, names[task.node_id])
        return found


def _next(side: FairwaySide, watches: list[Watch], counts: dict[int, int]) -> objects_pb2.Task:
    """One of the tasks once all are in every balancer, of the slot killed least often: failures make starts wait."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        known = [
            task
            for task in side.tasks("endpoints")
            if task.status.ready and all(watch.has(task.address) for watch in watches)
        ]
        if len(known) == REPLICAS:  # else the start of the one before would be measured as well
            chosen = min(known, key=lambda task: (counts.get(task.slot, 0), task.slot))
            counts[chosen.slot] = counts.get(chosen.slot, 0) + 1
            return chosen
        if time.monotonic() > deadline:
            raise LabError(f"only {len(known)} of {REPLICAS} tasks are ready after {WAIT_SECONDS_MAX:.0f} s")
        time.sleep(0.1)


def _kill(side: FairwaySide, watches: list[Watch], task: objects_pb2.Task, host: str) -> list[float]:
    """Milliseconds until each host's balancer has let go of it."""
    process = subprocess.Popen(
        side.lab.command_in(host, ["sh", "-c", f"read go; kill -9 {task.status.pid}"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(SETTLE_SECONDS)  # the shell is there: what follows is the kill alone
    began_s = time.monotonic()
    process.communicate("go\n", timeout=WAIT_SECONDS_MAX)
    while any(watch.gone_s(task.address) is None for watch in watches):
        if time.monotonic() - began_s > WAIT_SECONDS_MAX:
            raise LabError(f"{task.meta.name} at {task.address} is still balanced to after {WAIT_SECONDS_MAX:.0f} s")
        time.sleep(0.01)
    return [((watch.gone_s(task.address) or time.monotonic()) - began_s) * 1000 for watch in watches]


def _scale() -> dict[str, Any]:
    """The program in a network namespace of its own, with an underlay that leads nowhere."""
    underlay = (
        "ip link set lo up; ip link add under type veth peer name other; ip addr add 198.51.100.1/24 dev under; "
        "ip link set under up; ip link set other up; "
    )
    command = f"{underlay} exec {sys.executable} -m bench.endpoints_scale"
    found: dict[str, Any] = json.loads(output_of(["unshare", "--net", "sh", "-ec", command], "bench.endpoints_scale"))
    return found
