"""The level rises when every voter is up and knows it, and every other host that is up; nobody below it gets in."""

from __future__ import annotations

import pytest

from daemon.leader.feature_level_plan import next_level, plan_level, too_old
from daemon.leader.liveness_plan import Limits, Signs, plan_liveness
from daemon.leader.report_plan import plan_reports
from daemon.leader.voters_plan import plan_voters
from proto import objects_pb2 as objects
from proto.host_pb2 import HostReport
from raft.features import level_of
from raft.store import Store
from raft.transaction import TransactionBuilder

UP, DOWN = objects.NODE_STATE_READY, objects.NODE_STATE_DOWN


def store_with(level: int, **hosts: tuple[int, objects.NodeState.ValueType]) -> Store:
    """Hosts as name=(level that its build knows, state)."""
    store = Store()
    builder = TransactionBuilder().create(objects.Cluster(meta=objects.Meta(id="c", name="c"), feature_level=level))
    for name, (known, state) in hosts.items():
        description = objects.NodeDescription(feature_level=known, fairway_version=f"0.{known}")
        meta = objects.Meta(id=name, name=name)
        role = objects.NODE_ROLE_VOTER
        builder.create(objects.Node(meta=meta, description=description, state=state, role=role))
    store.apply(builder.build("r", "test", 1), 1)
    return store


@pytest.mark.parametrize(
    ("hosts", "known", "wanted"),
    [
        ({"a": (2, UP), "b": (2, UP), "c": (2, UP)}, 2, 2),
        ({"a": (2, UP), "b": (2, UP), "c": (1, UP)}, 2, 1),  # a voter is old
        ({"a": (2, UP), "b": (2, UP), "c": (0, UP)}, 2, 1),  # a voter from before levels
        ({"a": (2, UP), "b": (2, UP), "c": (2, DOWN)}, 2, 1),  # a voter that may come back with whatever build
        ({"a": (2, UP), "b": (2, UP), "c": (2, UP), "w": (1, UP)}, 2, 1),  # another host is old
        ({"a": (2, UP), "b": (2, UP), "c": (2, UP), "w": (1, DOWN)}, 2, 2),  # and does not hold everybody up
        ({"a": (3, UP), "b": (3, UP), "c": (3, UP)}, 2, 2),  # the leader itself is the oldest
        ({"a": (3, UP), "b": (4, UP), "c": (9, UP)}, 5, 3),
    ],
)
def test_the_level_that_everybody_knows(
    hosts: dict[str, tuple[int, objects.NodeState.ValueType]], known: int, wanted: int
) -> None:
    store = store_with(1, **hosts)
    assert next_level(store, "abc", known) == wanted
    builder, planned = plan_level(store, "abc", known)
    assert planned == wanted
    assert (len(builder) == 0) == (wanted == 1)
    if wanted > 1:
        raising = builder.build("raise", "leader", 2)
        assert raising.feature_level == wanted  # who does not know it stops before it
        store.apply(raising, 2)
        assert level_of(store) == wanted


def test_the_level_never_falls_and_without_voters_it_stays() -> None:
    store = store_with(3, a=(1, UP), b=(1, UP), c=(1, UP))
    assert next_level(store, "abc", 5) == 3
    assert len(plan_level(store, "abc", 5)[0]) == 0
    assert next_level(store_with(1, a=(2, UP)), "", 2) == 1
    assert next_level(store_with(1, a=(2, UP)), "ax", 2) == 1  # a voter that no object is known of


def test_a_voter_that_changes_meanwhile_makes_the_plan_anew() -> None:
    store = store_with(1, a=(2, UP))
    raising = plan_level(store, "a", 2)[0].build("raise", "leader", 2)
    node = objects.Node()
    node.CopyFrom(store.get(objects.Node, "a") or node)
    node.description.feature_level = 1
    store.apply(TransactionBuilder().update(node).build("back", "test", 2), 2)
    store.apply(raising, 3)
    assert level_of(store) == 1


def test_an_old_host_is_kept_out_by_name_and_gets_no_vote() -> None:
    store = store_with(2, a=(2, UP), b=(2, UP), c=(1, UP))
    words = too_old(store, "c", 1, "0.1")
    assert words == ("c runs fairway 0.1, which knows feature level 1; the cluster is at 2: upgrade fairway on c")
    assert too_old(store, "b", 2, "0.2") == ""
    nodes = list(store.table(objects.Node))
    step = plan_voters(nodes, ["a"], "a", 0, 0, level=1)
    assert step is not None and step.add is not None
    assert plan_voters(nodes, ["a"], "a", 0, 0, level=2) is None  # two can vote, which is no better than one


def test_a_host_that_is_kept_out_is_down_and_its_message_says_why() -> None:
    store = store_with(2, a=(2, UP), b=(1, UP))

    def planned(why: str) -> TransactionBuilder:
        signs = Signs({"a": 10.0}, 0.0, {"b": 10.0}, {"b": why})  # its kernel answers, which changes nothing
        return plan_liveness(store, signs, Limits(down_s=3.0, restart_s=10.0), 10.0, 5)

    store.apply(planned("b is too old").build("down", "leader", 5), 2)
    node = store.get(objects.Node, "b")
    assert node is not None and (node.state, node.state_message) == (DOWN, "b is too old")
    assert len(planned("b is too old")) == 0
    assert len(planned("b is older still")) == 1


def test_the_first_report_of_a_session_says_at_once_what_a_host_runs() -> None:
    store = store_with(1, a=(2, UP))
    report = HostReport(address="10.0.0.1", feature_level=1, fairway_version="0.1")
    store.apply(plan_reports(store, [("a", report)], 5).build("r2", "leader", 5), 2)
    node = store.get(objects.Node, "a")
    assert node is not None
    assert (node.description.feature_level, node.description.fairway_version) == (1, "0.1")
