"""Slots: who gets which share of a service's connections, and how little moves when backends come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.model import Balance, Endpoint
from net.slots_plan import HASH_SLOTS, WEIGHTED_SLOTS_MAX, apportioned, draw_of, slots
from tests.net.world import HOSTS

LOCAL = HOSTS[0]


def endpoint(number: int, *, node: str = "node2", zone: str = "", weight: int = 1, ready: bool = True) -> Endpoint:
    return Endpoint(
        f"t{number:04d}", f"web.{number}", "web", node, f"10.112.2.{number % 250}", ready, weight=weight, zone=zone
    )


def shares(policy: str, endpoints: list[Endpoint], local_first: bool = False) -> Counter[str]:
    chosen = slots(Balance(policy, local_first), endpoints, replace(LOCAL, zone="a"))
    return Counter(each.task_id for each in chosen)


@pytest.mark.parametrize("policy", ["random", "round-robin", "weighted", "source-hash", "least-loaded"])
def test_every_ready_endpoint_has_a_slot_and_no_other_has(policy: str) -> None:
    endpoints = [endpoint(number, ready=number != 3) for number in range(8)]
    assert sorted(shares(policy, endpoints)) == [f"t000{number}" for number in (0, 1, 2, 4, 5, 6, 7)]
    assert not slots(Balance(policy), [endpoint(1, ready=False)], LOCAL)
    assert draw_of(Balance(policy)) in ("random", "turn", "hash")


def test_a_policy_that_does_not_exist_is_said() -> None:
    with pytest.raises(ValueError, match="'fastest' is no balancing policy; there are random, round-robin"):
        draw_of(Balance("fastest"))


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ([endpoint(1, node="node1"), endpoint(2, zone="a"), endpoint(3)], ["t0001"]),
        ([endpoint(1, node="node1", ready=False), endpoint(2, zone="a"), endpoint(3)], ["t0002"]),
        ([endpoint(2, zone="b"), endpoint(3)], ["t0002", "t0003"]),
    ],
)
def test_local_first_is_the_host_then_its_zone_then_all(endpoints: list[Endpoint], chosen: list[str]) -> None:
    assert sorted(shares("random", endpoints, local_first=True)) == chosen
    assert len(shares("random", endpoints)) == sum(each.ready for each in endpoints)


def test_hosts_begin_their_turns_with_different_backends() -> None:
    endpoints = [endpoint(number) for number in range(3)]
    begins = {slots(Balance("round-robin"), endpoints, host)[0].task_id for host in HOSTS}
    assert len(begins) == 3


def test_weights_are_exact_where_few_slots_do() -> None:
    assert shares("weighted", [endpoint(1, weight=30), endpoint(2, weight=10), endpoint(3, weight=20)]) == {
        "t0001": 3,
        "t0002": 1,
        "t0003": 2,
    }
    assert shares("weighted", [endpoint(1, weight=7), endpoint(2, weight=7)]) == {"t0001": 1, "t0002": 1}


@given(st.lists(st.integers(1, 100), min_size=1, max_size=400))
def test_weights_keep_their_proportion_in_bounded_slots(weights: list[int]) -> None:
    found = shares("weighted", [endpoint(number, weight=weight) for number, weight in enumerate(weights)])
    total = sum(found.values())
    assert len(found) == len(weights)
    assert total <= max(WEIGHTED_SLOTS_MAX, len(weights))
    order = sorted(range(len(weights)), key=lambda number: weights[number])
    counts = [found[f"t{number:04d}"] for number in order]
    assert all(later >= earlier - 1 for earlier, later in pairwise(counts))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=50), st.integers(50, 500))
def test_seats_are_all_given_and_follow_the_weights(weights: list[int], total: int) -> None:
    seats = apportioned(weights, total)
    assert sum(seats) == total
    rest = total - len(weights)
    for seat, weight in zip(seats, weights, strict=True):
        assert abs(seat - 1 - rest * weight / sum(weights)) < 1


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 9999), min_size=2, max_size=300), st.data())
def test_a_backend_that_leaves_moves_its_own_clients_only(numbers: set[int], data: st.DataObject) -> None:
    """And one that comes, which is the same seen from behind: about one in N."""
    all_of_them = [endpoint(number) for number in sorted(numbers)]
    gone = data.draw(st.sampled_from(all_of_them))
    before = slots(Balance("source-hash"), all_of_them, LOCAL)
    after = slots(Balance("source-hash"), [each for each in all_of_them if each is not gone], LOCAL)
    assert len(before) == len(after) == HASH_SLOTS
    moved = [a for a, b in zip(before, after, strict=True) if a is not b]
    assert all(each is gone for each in moved)
    share = len(moved) / len(before)
    assert 0.1 / len(numbers) < share < 1.5 / len(numbers) + 0.01


@pytest.mark.parametrize("count", [1, 64, 128, 256])
def test_one_more_than_a_power_of_two_moves_as_few_clients_as_any(count: int) -> None:
    backends = [endpoint(number) for number in range(count + 1)]
    few, more = (slots(Balance("source-hash"), backends[:number], LOCAL) for number in (count, count + 1))
    moved = sum(a is not b for a, b in zip(few, more, strict=True))
    assert 0 < moved / len(more) < 1.5 / (count + 1) + 0.01


def test_all_hosts_hash_alike() -> None:
    endpoints = [endpoint(number) for number in range(7)]
    assert len({slots(Balance("source-hash"), endpoints, host) for host in HOSTS}) == 1
