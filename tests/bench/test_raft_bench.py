"""The benchmark of consensus: its encoding of etcd's messages, its windows, its bars, and that both sides run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from bench.raft import calm, measure
from bench.raft.etcd_client import field, fields
from bench.raft.fairway_members import LEADER_SECONDS_MAX, FairwayMembers
from bench.raft.load import Load, Measurement
from lab.layout import LabError

T = TypeVar("T")


def test_fields_come_back_as_they_were_encoded() -> None:
    long = bytes(range(256)) * 3
    assert fields(field(1, b"key") + field(2, long) + b"\x20\x96\x01") == {1: b"key", 2: long, 4: 150}


def test_a_window_counts_only_what_ends_in_it_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bench.raft.load.time.perf_counter", lambda: now[0])
    window = Measurement(10.0, operations_each=3)
    for moment in (101.0, 103.0, 105.0, 109.9, 110.5):
        now[0] = moment
        window.took(0.25)
    assert not window.goes_on()
    result = Load(**window.result())
    assert result.per_second == pytest.approx(3 * 3 / 8.0)
    assert result.p50_ms == result.p99_ms == 250.0


def test_rounds_that_others_disturbed_are_run_again_and_the_calmest_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = iter([0.0, 5.0, 5.0, 5.0, 5.0, 9.0, 9.0, 9.0])
    moments = iter(range(100))
    monkeypatch.setattr(calm, "_foreign_seconds", lambda _pids: next(foreign))
    monkeypatch.setattr("bench.raft.calm.time.monotonic", lambda: float(next(moments)))
    names = iter("abcdefgh")
    kept, share = calm.calmest(2, list, lambda: next(names))
    assert sorted(kept) == ["b", "d"]
    assert share == 0.0


def test_a_bar_that_is_missed_or_not_measured_fails_the_report() -> None:
    better, worse = Load(2000.0, 1.0, 2.0), Load(1000.0, 2.0, 4.0)
    ours, etcd = measure.Found(), measure.Found()
    for key in measure.LOADS:
        ours.loads[key], etcd.loads[key] = [better], [worse]
    report = measure._report(ours, etcd, [worse], [worse], dict.fromkeys(measure.LOADS, 0.0))
    bars = {row.what: row.met for row in report.rows if row.bar}
    assert bars["write, one client, median"] is True
    assert bars["writes, 64 clients"] is True
    assert bars["leader killed to next write"] is None
    assert not report.bars_met()
    etcd.loads["write", 64] = [Load(9000.0, 1.0, 1.0)]
    report = measure._report(ours, etcd, [worse], [worse], dict.fromkeys(measure.LOADS, 0.0))
    assert {row.what: row.met for row in report.rows}["writes, 64 clients"] is False
    assert "MISSED" in report.text()


def in_the_end(ask: Callable[[], T]) -> T:
    """On a busy machine the leadership may move while the leader is asked."""
    for _ in range(3):
        with contextlib.suppress(LabError):
            return ask()
    return ask()


def test_three_members_write_read_and_survive_their_leader(tmp_path: Path) -> None:
    with FairwayMembers(tmp_path) as members:
        assert in_the_end(lambda: members.write(4, 0.5)).per_second > 0
        assert in_the_end(lambda: members.read(4, 0.5)).per_second > 0
        # Elections happen by themselves on a busy machine, but not each time.
        terms = [members.term_after_burning(2.0)]
        while terms[-1][0] != terms[-1][1] and len(terms) < 4:
            terms.append(members.term_after_burning(2.0))
        assert terms[-1][0] == terms[-1][1], terms
        assert 0 < members.failover_seconds() <= LEADER_SECONDS_MAX
        in_the_end(lambda: members.fill(100))
        assert members.restart_seconds() > 0
