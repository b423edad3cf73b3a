"""Hosts that fall silent, and hosts that are heard again."""

from __future__ import annotations

import pytest

from daemon.leader.liveness_plan import plan_liveness
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

READY, DOWN, NEW = objects.NODE_STATE_READY, objects.NODE_STATE_DOWN, objects.NODE_STATE_UNSPECIFIED


@pytest.mark.parametrize(
    ("state", "heard_s", "now_s", "expected"),
    [
        (READY, 109.0, 110.0, READY),
        (READY, 106.9, 110.0, DOWN),
        (READY, 107.1, 110.0, READY),
        (READY, None, 102.9, READY),  # a fresh leader gives everybody the whole limit
        (READY, None, 103.1, DOWN),
        (READY, 99.0, 102.1, DOWN),  # the leader before, last heard as a voter
        (DOWN, 99.5, 101.0, DOWN),  # heard as a voter only: not in a session yet
        (DOWN, 100.5, 101.0, READY),
        (NEW, 100.5, 101.0, READY),
        (DOWN, None, 101.0, DOWN),
    ],
)
def test_states_follow_what_was_heard(state: int, heard_s: float | None, now_s: float, expected: int) -> None:
    model = ClusterModel(0)
    before = objects.Node()
    before.CopyFrom(model.add_node("a"))
    before.state = state  # type: ignore[assignment]
    model.apply(TransactionBuilder().put(before))
    heard = {} if heard_s is None else {"node-a": heard_s}
    builder = plan_liveness(model.store, heard, 100.0, now_s, 3.0, model.now_unix_ms)
    assert len(builder) == (0 if expected == state else 1)
    if len(builder):
        model.apply(builder)
    node = model.store.get(objects.Node, "node-a")
    assert node is not None
    assert node.state == expected


def test_the_tasks_of_a_host_are_lost_with_it_in_one_transaction() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(2)))
    model.settle()
    model.apply(plan_liveness(model.store, {}, 0.0, 10.0, 3.0, model.now_unix_ms))
    assert {task.status.state for task in model.tasks()} == {objects.TASK_STATE_LOST}
    assert not any(task.status.ready for task in model.tasks())
    (node,) = model.store.table(objects.Node)
    assert node.state_message == "not heard of for more than 3 s"
    assert len(plan_liveness(model.store, {}, 0.0, 11.0, 3.0, model.now_unix_ms)) == 0
