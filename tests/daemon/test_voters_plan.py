"""Who votes, as tables: hosts on the left, the next step on the right."""

from __future__ import annotations

import pytest

from daemon.leader.voters_plan import VoterStep, plan_voters, wanted_count
from proto import objects_pb2 as objects

NOW = 10_000_000
LIMIT = 300_000
UP, DOWN, GONE, DRAINED = "up", "down", "gone", "drained"


def node(
    name: str, state: str = UP, zone: str = "", role: objects.NodeRole.ValueType = objects.NODE_ROLE_VOTER
) -> objects.Node:
    made = objects.Node(meta=objects.Meta(id=name, name=name, created_unix_ms=ord(name[0])), role=role)
    made.state = objects.NODE_STATE_DOWN if state in (DOWN, GONE) else objects.NODE_STATE_READY
    made.state_since_unix_ms = NOW - LIMIT - 1 if state == GONE else NOW - 1
    made.availability = objects.AVAILABILITY_DRAINING if state == DRAINED else objects.AVAILABILITY_ACTIVE
    if zone:
        made.meta.labels["zone"] = zone
    return made


def step(nodes: list[objects.Node], voters: str, leader: str = "a") -> VoterStep | None:
    return plan_voters(nodes, voters, leader, NOW, LIMIT)


def words(planned: VoterStep | None) -> str:
    if planned is None:
        return ""
    if planned.add is not None:
        return f"+{planned.add.meta.id}"
    return f"-{planned.remove}" if planned.remove else f"leader {planned.hand_over}"


@pytest.mark.parametrize(
    ("hosts", "voters", "expected"),
    [
        ("a", "a", ""),
        ("a b", "a", ""),  # two voters survive no loss
        ("a b c", "a", "+b"),
        ("a b c", "ab", "+c"),
        ("a b c", "abc", ""),
        ("a b c d", "abc", ""),
        ("a b c d e", "abc", "+d"),
        ("a b c d e", "abcd", "+e"),
        ("a b c d e f", "abcde", ""),
        ("a b", "abc", "-c"),  # c was removed
        ("a b", "ab", "-b"),
        ("a b c:down d", "abc", ""),  # not for long enough
        ("a b c:gone", "abc", ""),  # nobody is there to replace it
        ("a b c:gone d", "abc", "+d"),
        ("a b c:gone d", "abcd", "-c"),
        ("a b c:gone d:down", "abc", ""),
        ("a b c d:gone e:gone", "abcde", "-e"),  # three that are up can lose one, five with two away none
        ("a b c d:gone", "abcd", "-d"),
        ("a b c d:gone e", "abcde", ""),
        ("a b c d:gone e f", "abcde", "+f"),
        ("a:drained b c", "abc", "leader b"),
        ("a:drained b:drained c", "abc", "leader c"),
        ("a:drained b:down c:down", "abc", ""),
        ("a b:drained c d", "abc", ""),
    ],
)
def test_the_next_step(hosts: str, voters: str, expected: str) -> None:
    nodes = [node(name, state or UP) for name, _, state in (text.partition(":") for text in hosts.split())]
    assert words(step(nodes, voters)) == expected


def test_votes_are_spread_over_zones() -> None:
    nodes = [node("a", zone="x"), node("b", zone="x"), node("c", zone="y"), node("d", zone="z")]
    assert words(step(nodes, "a")) == "+c"
    assert words(step(nodes, "ac")) == "+d"
    assert step(nodes, "acd") is None


def test_votes_move_from_a_crowded_zone_and_not_back() -> None:
    nodes = [node("a", zone="x"), node("b", zone="x"), node("c", zone="x"), node("d", zone="y")]
    assert words(step(nodes, "abc")) == "+d"
    assert words(step(nodes, "abcd")) == "-c"
    assert step(nodes, "abd") is None


def test_workers_never_vote() -> None:
    worker = objects.NODE_ROLE_WORKER
    assert step([node("a"), node("b", role=worker), node("c", role=worker)], "a") is None


def test_every_chain_of_steps_ends() -> None:
    states = (UP, DOWN, GONE)
    for number in range(3**5):
        picks = [states[number // 3**place % 3] for place in range(5)]
        nodes = [node("a")] + [
            node(name, state, zone) for name, state, zone in zip("bcdef", picks, "xxyyz", strict=True)
        ]
        voters = "abc"
        for _ in range(20):
            planned = step(nodes, voters)
            if planned is None:
                break
            voters = voters.replace(planned.remove, "") if planned.remove else voters + planned.add.meta.id  # type: ignore[union-attr]
            assert "a" in voters
        else:
            raise AssertionError(f"no end for {picks}: {voters}")
        assert len(voters) in (3, 5), (picks, voters)


def test_counts() -> None:
    assert [wanted_count(number) for number in range(8)] == [0, 1, 1, 3, 3, 5, 5, 5]
