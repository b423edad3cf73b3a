"""`./run bench raft`: consensus beside etcd, both with three members on this machine, alternating."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.process_cost import cpu_percent, pss_mb
from bench.raft.calm import ROUNDS_FACTOR_MAX, calmest
from bench.raft.etcd import EtcdMembers
from bench.raft.fairway_members import NAMES, FairwayMembers
from bench.raft.grpc_side import SERVICES, GrpcSide
from bench.raft.load import VALUE_BYTES, Load
from bench.table import Report, Row, quotient

FOLDER = Path("/var/tmp")  # a real disk, where /tmp may be memory
ROUNDS = 5
WINDOW_SECONDS = 2.0
FAILOVERS = 3
OBJECTS = 100_000
BURN_SECONDS = 2.0
SETTLE_SECONDS = 3.0
IDLE_SECONDS = 8.0
LOADS = (("write", 1), ("write", 64), ("write", 256), ("read", 1), ("read", 64))

FAILOVER_SECONDS_MAX = 2.0
START_SECONDS_MAX = 5.0
IDLE_PERCENT_MAX = 1.0
GRPC_SHARE_MIN = 0.5


@dataclass
class Found:
    """Measurements of one side, by what was measured."""

    loads: dict[tuple[str, int], list[Load]] = field(default_factory=dict)
    failover_seconds: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)
    fresh_mb: list[float] = field(default_factory=list)
    full_mb: list[float] = field(default_factory=list)
    idle_percent: list[float] = field(default_factory=list)
    elections: list[int] = field(default_factory=list)  # terms passed while the main thread was busy


def measure(sides: Sequence[str]) -> Report:
    """Runs everything for the sides named ("fairway", "etcd")."""
    found = {"fairway": Found(), "etcd": Found()}
    grpc: list[Load] = []
    grpc_single: list[Load] = []
    with contextlib.ExitStack() as stack:
        members: list[FairwayMembers | EtcdMembers] = []
        if "etcd" in sides:
            members.append(stack.enter_context(EtcdMembers(FOLDER)))
        if "fairway" in sides:
            members.append(stack.enter_context(FairwayMembers(FOLDER)))
        for one in members:
            _idle(one, found[one.name])
        disturbed = {load: _alternate(members, found, *load) for load in LOADS}
        for _ in range(FAILOVERS):
            for one in members:
                found[one.name].failover_seconds.append(one.failover_seconds())
                _say(one.name, f"{found[one.name].failover_seconds[-1]:.2f} s from the leader's end to a write")
                if isinstance(one, FairwayMembers):
                    before, after = one.term_after_burning(BURN_SECONDS)
                    found[one.name].elections.append(after - before)
        for one in members:
            _full(one, found[one.name])
    if "fairway" in sides:
        with GrpcSide() as lab:
            grpc_single += [lab.write_singly(64, WINDOW_SECONDS) for _ in range(ROUNDS)]
            grpc += [lab.write(64, 2 * WINDOW_SECONDS) for _ in range(ROUNDS)]
            _say("fairway", f"gRPC: {[round(load.per_second) for load in grpc]} writes/s in deploys")
    return _report(found["fairway"], found["etcd"], grpc, grpc_single, disturbed)


def _say(side: str, text: str) -> None:
    print(f"{side}: {text}", file=sys.stderr, flush=True)


def _idle(members: FairwayMembers | EtcdMembers, found: Found) -> None:
    time.sleep(SETTLE_SECONDS)
    found.idle_percent = cpu_percent([[pid] for pid in members.pids()], IDLE_SECONDS)
    found.fresh_mb = [pss_mb([pid]) for pid in members.pids()]
    _say(members.name, f"idle {[round(percent, 2) for percent in found.idle_percent]} % of a core each")


def _alternate(
    members: Sequence[FairwayMembers | EtcdMembers], found: dict[str, Found], what: str, clients: int
) -> float:
    """One kind of load on both sides in turn, the calmest rounds; the share of the machine that others used."""

    def one_round() -> list[Load]:
        return [_load(one, what, clients) for one in members]

    rounds, share = calmest(ROUNDS, lambda: [pid for one in members for pid in one.pids()], one_round)
    for position, one in enumerate(members):
        found[one.name].loads[what, clients] = [loads[position] for loads in rounds]
    return share


def _load(members: FairwayMembers | EtcdMembers, what: str, clients: int) -> Load:
    load = members.write(clients, WINDOW_SECONDS) if what == "write" else members.read(clients, WINDOW_SECONDS)
    _say(
        members.name,
        f"{what} by {clients}: {load.per_second:.0f}/s, {load.p50_ms:.2f} ms median, {load.p99_ms:.2f} ms p99",
    )
    return load


def _full(members: FairwayMembers | EtcdMembers, found: Found) -> None:
    members.fill(OBJECTS)
    time.sleep(SETTLE_SECONDS)
    found.full_mb = [pss_mb([pid]) for pid in members.pids()]
    found.start_seconds = [members.restart_seconds() for _ in range(2)]
    _say(members.name, f"{found.full_mb} MB and {found.start_seconds} s to start with {OBJECTS} objects more")


def _report(
    ours: Found,
    etcd: Found,
    grpc: list[Load],
    grpc_single: list[Load],
    disturbed: dict[tuple[str, int], float],
) -> Report:
    report = Report("raft", f"Three members, every write on the disks of a majority, values of {VALUE_BYTES} bytes")
    for what, clients in LOADS:
        mine, theirs = ours.loads.get((what, clients), []), etcd.loads.get((what, clients), [])
        if clients == 1:
            for name, values in (("median", "p50_ms"), ("99th percentile", "p99_ms")):
                bar = "no worse than etcd's" if what == "write" and name == "median" else ""
                row = _compared(f"{what}, one client, {name}", "ms", mine, theirs, values, larger_is_better=False)
                report.rows.append(_with_bar(row, bar, 1.0))
        else:
            row = _compared(f"{what}s, {clients} clients", "per s", mine, theirs, "per_second", larger_is_better=True)
            report.rows.append(_with_bar(row, "at least etcd's" if (what, clients) == ("write", 64) else "", 1.0))
    theirs = etcd.loads.get(("write", 64), [])
    row = _compared(
        f"objects by gRPC, 64 clients, {SERVICES + 1} a call",
        "per s",
        grpc,
        theirs,
        "per_second",
        larger_is_better=True,
    )
    report.rows.append(_with_bar(row, "at least half of etcd's", GRPC_SHARE_MIN))
    report.rows.append(
        _compared("objects by gRPC, 64 clients, 1 a call", "per s", grpc_single, theirs, "per_second", True)
    )
    for what, unit, mine_values, theirs_values, limit in (
        ("leader killed to next write", "s", ours.failover_seconds, etcd.failover_seconds, FAILOVER_SECONDS_MAX),
        (f"start with {OBJECTS} objects", "s", ours.start_seconds, etcd.start_seconds, START_SECONDS_MAX),
        ("memory of a fresh member", "MB PSS", ours.fresh_mb, etcd.fresh_mb, None),
        (f"memory with {OBJECTS} objects", "MB PSS", ours.full_mb, etcd.full_mb, None),
        ("idle member", "% of a core", ours.idle_percent, etcd.idle_percent, IDLE_PERCENT_MAX),
    ):
        ratio = quotient(theirs_values, mine_values)
        met = max(mine_values) <= limit if mine_values and limit is not None else None
        bar = f"at most {limit:g} {unit}" if limit is not None else ""
        report.rows.append(Row(what, unit, mine_values, "etcd", theirs_values, "etcd's / Fairway's", ratio, bar, met))
    elections = [float(count) for count in ours.elections]
    report.rows.append(
        Row(
            f"elections while the main thread is busy {BURN_SECONDS:g} s",
            "",
            elections,
            "etcd",
            [],
            "",
            None,
            "none",
            max(elections) == 0 if elections else None,
        )
    )
    report.notes += [
        f"{len(NAMES)} members a side; ours by mutual TLS, etcd's without TLS. Sides alternate in windows "
        f"of {WINDOW_SECONDS:g} s, the {ROUNDS} calmest rounds of {ROUNDS * ROUNDS_FACTOR_MAX}; values are medians.",
        "Share of the machine that others used in those rounds: "
        + ", ".join(f"{what} by {clients} {share:.0%}" for (what, clients), share in disturbed.items()),
        "Ours is asked at the proposal interface, in the leader's process; etcd by its gRPC API with grpcio's asyncio "
        "client at the leader, which costs as much CPU as etcd itself on a machine of two cores.",
        "Memory of ours counts every process: Python, TLS, two copies of the tables (readers and consensus).",
    ]
    return report


def _compared(
    what: str, unit: str, mine: list[Load], theirs: list[Load], attribute: str, larger_is_better: bool
) -> Row:
    ours = [float(getattr(load, attribute)) for load in mine]
    peer = [float(getattr(load, attribute)) for load in theirs]
    ratio = quotient(ours, peer) if larger_is_better else quotient(peer, ours)
    name = "Fairway's / etcd's" if larger_is_better else "etcd's / Fairway's"
    return Row(what, unit, ours, "etcd", peer, name, ratio)


def _with_bar(row: Row, bar: str, ratio_min: float) -> Row:
    if not bar:
        return row
    met = row.ratio >= ratio_min if row.ratio is not None else None
    return Row(row.what, row.unit, row.fairway, row.peer_name, row.peer, row.ratio_name, row.ratio, bar, met)
