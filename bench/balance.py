"""Through a service's VIP, beside straight from container to container, and beside HAProxy in TCP mode."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

from bench.fairway_side import FairwaySide
from bench.haproxy import HaProxy
from bench.programs import ROOT, output_of
from bench.table import Report, Row, quotient
from lab.images import base_root
from lab.layout import LabError

PORT = 9000
RUNS = 5
SECONDS = 1.8  # for each way in each measurement
DIRECT_SHARE_MIN = 0.9
PATHS = ("direct", "vip", "haproxy")
_ROWS = ("vip", "direct", "haproxy")
# measure -> (its figure, unit, whether more is better)
FIGURES = {
    "throughput": [("gbit_s", "Gbit/s", True)],
    "latency": [("rate", "round trips/s", True), ("p99_us", "µs, 99th percentile", False)],
    "connections": [("rate", "connections/s", True)],
}
_APP = """name: balance
services:
  near: {near}
  far: {far}
  client: {client}
"""
Found = dict[tuple[str, str, str, str], list[float]]  # (place, measure, figure, path)


def measure(sides: Sequence[str]) -> Report:
    """The three ways in short turns, RUNS times, for a backend on the client's host and for one on another."""
    found: Found = {}
    paths = [path for path in PATHS if path != "haproxy" or "haproxy" in sides]
    with FairwaySide(base_root(), host_count=2) as side, contextlib.ExitStack() as stack:
        bench = _Bench(side, stack)
        for run in range(RUNS):
            for place, service in (("same host", "near"), ("other host", "far")):
                for name, figures in FIGURES.items():
                    result = bench.ask(name, service, paths)
                    for figure, _, _ in figures:
                        for path in paths:
                            found.setdefault((place, name, figure, path), []).append(result[path][figure])
            print(f"run {run + 1} of {RUNS} is done", file=sys.stderr, flush=True)
    return _report(found)


class _Bench:
    """Three tasks: a client and a server on host-1, another server on host-2."""

    def __init__(self, side: FairwaySide, stack: contextlib.ExitStack) -> None:
        self._lab = side.lab
        on = "image: bench:1, command: [sleep, '1000000'], stop_grace_period: 0s"
        services = {
            name: f"{{{on}, deploy: {{placement: {{constraints: [node.hostname == {host}]}}}}}}"
            for name, host in (("near", "host-1"), ("far", "host-2"), ("client", "host-1"))
        }
        side.deploy("balance", _APP.format(**services))
        tasks = {task.service: task for task in side.tasks("balance")}
        self._addresses = {name: task.address for name, task in tasks.items()}
        self._vips = {name: task.vip for name, task in tasks.items()}
        self._networks = {
            name: self._network("host-2" if name == "far" else "host-1", task.meta.id) for name, task in tasks.items()
        }
        self._proxies = {}
        tunnel = tasks["near"].address.rpartition(".")[0] + ".1"
        for number, name in enumerate(("near", "far")):
            stack.enter_context(self._server(name, PORT))
            stack.enter_context(self._server(name, PORT + 1 + number))
            proxy = HaProxy(self._lab, "host-1", tunnel, PORT + 1 + number, [self._addresses[name]])
            stack.enter_context(proxy)
            self._proxies[name] = (tunnel, PORT + 1 + number)

    def ask(self, name: str, service: str, paths: Sequence[str]) -> dict[str, dict[str, float]]:
        """One measurement by the client; figures by path."""
        places = {
            "direct": (self._addresses[service], PORT),
            "vip": (self._vips[service], PORT),
            "haproxy": self._proxies[service],
        }
        words = [f"{path}={places[path][0]}:{places[path][1]}" for path in paths]
        printed = output_of(self._within("client", name, str(SECONDS), *words), f"{name} of {service}")
        result: dict[str, dict[str, float]] = json.loads(printed)
        return result

    def _network(self, host: str, task_id: str) -> str:
        """The network of a task, as this machine can enter it."""
        pid = self._lab.process_ids(host)["fairwayd"]
        return f"/proc/{pid}/root/run/fairway/netns/{task_id}"

    def _within(self, service: str, *words: str) -> list[str]:
        program = [sys.executable, "-m", "bench.balance_peer", *words]
        return ["nsenter", f"--net={self._networks[service]}", *program]

    @contextlib.contextmanager
    def _server(self, service: str, port: int) -> Iterator[None]:
        process = subprocess.Popen(
            self._within(service, "server", str(port)), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT
        )
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise LabError(f"the server in {service} did not start")
            yield
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _report(found: Found) -> Report:
    report = Report("balance", f"A connection to a service: its VIP beside the task itself and HAProxy; {RUNS} runs")
    for place in ("same host", "other host"):
        for name, figures in FIGURES.items():
            for figure, unit, more_is_better in figures:
                ours, direct, proxied = (found.get((place, name, figure, path), []) for path in _ROWS)
                what = f"{name}, {place}"
                share = _better(ours, direct, more_is_better)
                bar = f"at least {DIRECT_SHARE_MIN:g}" if more_is_better else ""
                met = share >= DIRECT_SHARE_MIN if bar and share is not None else None
                report.rows.append(Row(what, unit, ours, "direct", direct, "VIP / direct", share, bar, met))
                gain = _better(ours, proxied, more_is_better)
                bar = "above 1" if more_is_better else ""
                met = gain > 1 if bar and gain is not None else None
                report.rows.append(Row(what, unit, ours, "haproxy", proxied, "VIP / HAProxy", gain, bar, met))
    report.notes.append(
        "Python programs in the tasks' networks, the same for all; data by sendfile. Above 1: the VIP is better.\n"
        "HAProxy: Debian's, TCP mode, on the client's host, with one backend as the VIP has."
    )
    return report


def _better(ours: list[float], theirs: list[float], more_is_better: bool) -> float | None:
    """Of pairs of one run, since the machine's mood changes between runs: the median of their ratios."""
    if len(ours) != len(theirs) or not ours:
        return quotient(ours, theirs) if more_is_better else quotient(theirs, ours)
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(a / b if more_is_better else b / a for a, b in pairs)
