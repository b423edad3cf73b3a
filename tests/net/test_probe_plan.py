"""Who is probed when, and what the answers mean."""

from __future__ import annotations

from collections import Counter

import pytest

from net.model import Host
from net.probe_plan import (
    OUTCOMES_KEPT,
    OUTCOMES_UNTIL_LOSSY,
    PEERS_PER_PERIOD_MAX,
    ROUNDS_UNTIL_FAILED,
    SUSPECTS_PER_PERIOD_MAX,
    PathState,
    ring,
    sample,
)


def hosts(count: int) -> list[Host]:
    return [
        Host(f"n{number}", f"host-{number}", f"192.0.2.{number % 250}", "", "", "", number)
        for number in range(1, count + 1)
    ]


def test_the_ring_begins_after_this_host() -> None:
    every = hosts(5)
    assert [host.ordinal for host in ring(every[2], every)] == [4, 5, 1, 2]


@pytest.mark.parametrize("count", [2, 3, 9, 10, 1000])
def test_every_pair_is_probed_within_one_turn_of_the_ring_and_nobody_too_often(count: int) -> None:
    every = hosts(count)
    a_period = min(PEERS_PER_PERIOD_MAX, count - 1)
    periods = -(-(count - 1) // a_period)
    for local in every[:: max(1, count // 10)]:
        others = ring(local, every)
        probed = {host.node_id for period in range(periods) for host in sample(others, period, ())}
        assert probed == {host.node_id for host in every} - {local.node_id}
    if count == 1000:
        asked = Counter(host.node_id for local in every for host in sample(ring(local, every), 77, ()))
        assert set(asked.values()) == {a_period}


def test_suspects_are_probed_every_period_and_take_turns_where_they_are_many() -> None:
    every = hosts(100)
    others = ring(every[0], every)
    assert {"n50", "n60"} <= {host.node_id for host in sample(others, 0, {"n50", "n60"})}
    many = {f"n{number}" for number in range(30, 70)}
    seen: set[str] = set()
    for period in range(20):
        chosen = sample(others, period, many)
        assert len(chosen) == len({host.node_id for host in chosen}) <= PEERS_PER_PERIOD_MAX + SUSPECTS_PER_PERIOD_MAX
        seen |= {host.node_id for host in chosen}
    assert many <= seen


def test_alone_there_is_nobody_to_probe() -> None:
    every = hosts(1)
    assert sample(ring(every[0], every), 3, {"n1"}) == []


def test_a_path_fails_after_rounds_in_a_row_and_recovers_with_one() -> None:
    state = PathState()
    for _ in range(ROUNDS_UNTIL_FAILED - 1):
        state = state.after(False)
        assert not state.failing
    assert not state.after(True).lost_rounds
    state = state.after(False)
    assert state.failing
    assert state.after(False).failing
    assert not state.after(True).failing


def test_a_path_that_loses_many_probes_is_lossy_until_almost_none_is_lost() -> None:
    bad = PathState()
    for _ in range(OUTCOMES_UNTIL_LOSSY // 4):
        assert not bad.lossy
        bad = bad.after(True).after(True).after(False, True)
    assert (bad.lossy, bad.failing, bad.suspicious) == (True, False, True)
    good, rounds = bad, 0
    while good.lossy:
        good = good.after(True)
        rounds += 1
    assert OUTCOMES_KEPT / 2 < rounds <= OUTCOMES_KEPT
    assert not good.suspicious
    assert not PathState().after(False, True).after(True).lossy  # a single one says nothing
