"""Queries a second and their latency for local names, beside dnsmasq and unbound.

The same light client (dnsperf from Debian), eight of them at a time, asks all sides the same questions in turn. First
as fast as answers come, ten questions each under way; then at a fixed rate, where the latency is that of the server
and not of its queue.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench import dns_names as names
from bench.dns_sides import CLIENTS, Server, Wire, libraries_of, running
from bench.table import Report, Row, quotient
from lab import debian_packages
from lab.layout import LabError
from net.addresses import GATEWAY_ADDRESS

PEERS = ("dnsmasq", "unbound")
ROUNDS = 3
SECONDS = 4
UNDER_WAY = 10  # questions of each client
RATE = 4000  # a second, of all clients together
CLIENT_SECONDS_MAX = 60.0
LOST_SHARE_MAX = 0.01


@dataclass
class Found:
    """Of one side, a value for each round."""

    rate: list[float] = field(default_factory=list)
    cost_us: list[float] = field(default_factory=list)  # of the server's CPU, for each query
    p99_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    queries: int
    rate: float
    lost: int
    latencies_ms: list[float]  # of one client


def measure(sides: Sequence[str]) -> Report:
    """One side after the other, in turn, so that what else the machine does hits all of them."""
    found = {side: Found() for side in ("fairway", *PEERS)}
    with tempfile.TemporaryDirectory(prefix="fairway-dns-") as folder, closing(Wire()) as wire:
        questions = Path(folder) / "questions"
        questions.write_text("".join(f"{name} {kind}\n" for name, kind in names.questions()))
        for _ in range(ROUNDS):
            for side in (side for side in found if side in sides):
                with running(side, wire) as server:
                    _one_round(found[side], server, wire, questions)
    return _report(found)


def _one_round(found: Found, server: Server, wire: Wire, questions: Path) -> None:
    _ask(
        wire, questions, f"-n1 -Q{2 * RATE // len(CLIENTS)}".split()
    )  # once, so that nobody is asked for the first time
    before = server.cpu_seconds()
    server.lateness_ms()
    load = _ask(wire, questions, f"-l{SECONDS} -q{UNDER_WAY}".split())
    if load.lost > load.queries * LOST_SHARE_MAX:
        raise LabError(f"{load.lost} of {load.queries} queries got no answer; is something else using this machine?")
    found.rate.append(load.rate)
    found.cost_us.append((server.cpu_seconds() - before) / load.queries * 1e6)
    found.late_ms += server.lateness_ms()
    load = _ask(wire, questions, f"-l{SECONDS} -q{UNDER_WAY} -Q{RATE // len(CLIENTS)}".split())
    latencies = sorted(load.latencies_ms)
    found.p50_ms.append(latencies[len(latencies) // 2])
    found.p99_ms.append(latencies[len(latencies) * 99 // 100])


def _ask(wire: Wire, questions: Path, options: list[str]) -> Load:
    """All clients at once; the first tells the latency of each query."""
    tree = debian_packages.unpacked("dnsperf", ["dnsperf"])
    environment = dict(os.environ, LD_LIBRARY_PATH=libraries_of(tree))
    program = [str(tree / "usr/bin/dnsperf"), "-s", GATEWAY_ADDRESS, "-d", str(questions), "-c1", "-T1", *options]
    texts = []
    with ExitStack() as stack:
        clients: list[tuple[subprocess.Popen[bytes], IO[str]]] = []
        for address in CLIENTS:
            words = ["nsenter", f"--net={wire.client}", *program, "-a", address, *(["-v"] if not clients else [])]
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            client = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
            stack.callback(client.kill)
            clients.append((client, output))
        for client, said in clients:
            client.wait(CLIENT_SECONDS_MAX)
            said.seek(0)
            texts.append(said.read())
            if client.returncode != 0:
                raise LabError(f"dnsperf: {texts[-1][-500:]}")
    latencies = [float(line.split()[-1]) * 1000 for line in texts[0].splitlines() if line.startswith(("> NO", "> NX"))]
    return Load(
        int(sum(_number(text, "Queries completed:") for text in texts)),
        sum(_number(text, "Queries per second:") for text in texts),
        int(sum(_number(text, "Queries lost:") for text in texts)),
        latencies,
    )


def _number(text: str, label: str) -> float:
    (line,) = (line for line in text.splitlines() if label in line)
    return float(line.partition(label)[2].split()[0])


def _report(found: dict[str, Found]) -> Report:
    report = Report("dns", "Local names: queries a second and latency")
    ours = found["fairway"]
    for peer in PEERS:
        theirs = found[peer]
        report.rows += [
            Row(
                f"{len(CLIENTS)} clients, as fast as answers come",
                "queries/s",
                ours.rate,
                peer,
                theirs.rate,
                f"Fairway's / {peer}'s",
                quotient(ours.rate, theirs.rate),
            ),
            Row(
                "the server's CPU for each query",
                "us",
                ours.cost_us,
                peer,
                theirs.cost_us,
                f"{peer}'s / Fairway's",
                quotient(theirs.cost_us, ours.cost_us),
            ),
            Row(
                f"latency p50 at {RATE} queries/s",
                "ms",
                ours.p50_ms,
                peer,
                theirs.p50_ms,
                f"{peer}'s / Fairway's",
                quotient(theirs.p50_ms, ours.p50_ms),
            ),
            Row(
                f"latency p99 at {RATE} queries/s",
                "ms",
                ours.p99_ms,
                peer,
                theirs.p99_ms,
                f"{peer}'s / Fairway's",
                quotient(theirs.p99_ms, ours.p99_ms),
            ),
        ]
    if ours.late_ms:
        report.rows.append(
            Row("under that load another thread wakes late by at most", "ms", ours.late_ms, "-", [], "", None)
        )
    report.notes.append(
        f"{names.SERVICES} services of {names.BACKENDS} tasks with IPv4 and IPv6 addresses; A, AAAA, PTR, and 5 % of "
        "names that are missing. Every server has one thread."
    )
    return report
