"""Whom a host asks for an image, and what it takes first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from daemon.pulling import sources_plan
from proto import objects_pb2 as objects


def node(name: str, zone: str = "", state: objects.NodeState.ValueType = objects.NODE_STATE_READY) -> objects.Node:
    made = objects.Node(meta=objects.Meta(id=name, name=name), state=state, api_port=7443)
    if zone:
        made.meta.labels["zone"] = zone
    return made


def test_holders_come_first_and_near_ones_before_far_ones() -> None:
    nodes = [
        node("own", "a"),
        node("far", "b"),
        node("down", "a", objects.NODE_STATE_DOWN),
        node("near", "a"),
        node("nowhere"),
        node("gone", "a", objects.NODE_STATE_DOWN),
    ]
    found = [each.meta.id for each in sources_plan.asked(nodes, {"far", "near", "down"}, "own")]
    assert found == ["near", "far", "down", "nowhere"], "one that is down has no part that could be had"


def test_many_hosts_are_asked_as_few() -> None:
    nodes = [node(f"n{number}") for number in range(200)]
    holders = {f"n{number}" for number in range(50)}
    lists = [sources_plan.asked(nodes, holders, f"n{number}") for number in range(100, 200)]
    assert {len(each) for each in lists} == {sources_plan.HOLDERS_ASKED_MAX + sources_plan.OTHERS_ASKED_MAX}
    firsts = Counter(each[0].meta.id for each in lists)
    assert max(firsts.values()) <= 12, "all begin with the same holder"


def test_the_near_one_that_sends_least_is_read_from_unless_it_sent_something_wrong() -> None:
    sources, nearby = ["x", "y", "far"], {"x", "y"}
    assert sources_plan.choose(sources, nearby, {"x": 2, "y": 1}, set()) == "y"
    assert sources_plan.choose(sources, nearby, {"x": 2, "y": 1}, {"y"}) == "x"
    assert sources_plan.choose(sources, nearby, {}, {"x", "y"}) == "far"
    assert sources_plan.choose([], nearby, {}, set()) is None


@given(st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=5), st.text(max_size=3))
def test_every_blob_comes_once_and_none_before_a_rarer_one(held: list[set[str]], own: str) -> None:
    holders = {str(number): each for number, each in enumerate(held)}
    order = list(sources_plan.rarest_first("abcdefgh", holders, own))
    assert sorted(order) == sorted("abcdefgh")
    counts = [sum(digest in each for each in held) for digest in order]
    assert counts == sorted(counts)


def test_hosts_begin_with_different_blobs() -> None:
    held = {"leader": set("abcdefgh")}
    firsts = {next(sources_plan.rarest_first("abcdefgh", held, f"n{number}")) for number in range(30)}
    assert len(firsts) > 4


def test_what_becomes_known_while_blobs_are_fetched_counts() -> None:
    held = {"leader": set("abc")}
    order = sources_plan.rarest_first("abc", held, "own")
    first = next(order)
    second, third = sorted(set("abc") - {first})
    held["other"] = {second}
    assert list(order) == [third, second]


def test_the_images_that_few_hosts_hold_are_fetched_first() -> None:
    def image(name: str, holders: int, size: int) -> objects.Image:
        return objects.Image(meta=objects.Meta(id=name), node_ids=[str(n) for n in range(holders)], size_bytes=size)

    images = [image("common", 3, 1), image("large", 1, 9), image("small", 1, 2)]
    assert [each.meta.id for each in sources_plan.images_in_turn(images)] == ["small", "large", "common"]
