"""Hosts that fall silent, and hosts that are heard again."""

from __future__ import annotations

import pytest

from daemon.leader.liveness_plan import Limits, Signs, falling_silent, plan_liveness
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

READY, DOWN, NEW = objects.NODE_STATE_READY, objects.NODE_STATE_DOWN, objects.NODE_STATE_UNSPECIFIED
SILENT = objects.NODE_STATE_SILENT
LIMITS = Limits(down_s=3.0, restart_s=10.0)


def one_node(model: ClusterModel, state: int) -> None:
    before = objects.Node()
    before.CopyFrom(model.add_node("a"))
    before.state = state  # type: ignore[assignment]
    model.apply(TransactionBuilder().put(before))


def state_of(model: ClusterModel) -> int:
    node = model.store.get(objects.Node, "node-a")
    assert node is not None
    return node.state


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
    one_node(model, state)
    heard = {} if heard_s is None else {"node-a": heard_s}
    builder = plan_liveness(model.store, Signs(heard, 100.0), LIMITS, now_s, model.now_unix_ms)
    assert len(builder) == (0 if expected == state else 1)
    if len(builder):
        model.apply(builder)
    assert state_of(model) == expected


@pytest.mark.parametrize(
    ("state", "heard_s", "answered_s", "now_s", "expected"),
    [
        (READY, 106.9, 109.0, 110.0, SILENT),
        (READY, 106.9, 106.9, 110.0, DOWN),  # answered, and for longer than the limit not any more
        (SILENT, 104.0, 110.0, 110.0, SILENT),
        (SILENT, 104.0, 106.0, 110.0, DOWN),  # it lost its power meanwhile
        (SILENT, 99.0, 109.0, 110.0, DOWN),  # fairwayd does not come back
        (SILENT, 109.0, 108.0, 110.0, READY),
        (SILENT, None, 110.0, 103.1, SILENT),  # a fresh leader
        (DOWN, 104.0, 110.0, 110.0, DOWN),  # its tasks are lost already
        (NEW, None, 110.0, 104.0, DOWN),
    ],
)
def test_a_host_whose_kernel_answers_has_longer(
    state: int, heard_s: float | None, answered_s: float, now_s: float, expected: int
) -> None:
    model = ClusterModel(0)
    one_node(model, state)
    signs = Signs({} if heard_s is None else {"node-a": heard_s}, 100.0, {"node-a": answered_s})
    model.apply(plan_liveness(model.store, signs, LIMITS, now_s, model.now_unix_ms))
    assert state_of(model) == expected


def test_the_tasks_of_a_silent_host_are_kept() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(2)))
    model.settle()
    (node,) = model.store.table(objects.Node)
    signs = Signs({}, 0.0, {node.meta.id: 4.0})
    model.apply(plan_liveness(model.store, signs, LIMITS, 4.0, model.now_unix_ms))
    (node,) = model.store.table(objects.Node)
    assert node.state == SILENT and "its fairwayd does not" in node.state_message
    assert all(task.status.ready for task in model.tasks())
    model.settle()
    assert len(model.tasks()) == 2


def test_who_falls_silent_is_asked_before_it_counts_as_down() -> None:
    model = ClusterModel(0)
    one_node(model, READY)
    signs = Signs({"node-a": 100.0}, 90.0)
    assert falling_silent(model.store, signs, LIMITS, 101.4) == []
    assert [node.meta.id for node in falling_silent(model.store, signs, LIMITS, 101.6)] == ["node-a"]
    down = objects.Node()
    down.CopyFrom(next(iter(model.store.table(objects.Node))))
    down.state = DOWN
    model.apply(TransactionBuilder().update(down))
    assert falling_silent(model.store, signs, LIMITS, 101.6) == []


def test_the_tasks_of_a_host_are_lost_with_it_in_one_transaction() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec(web=service_spec(2)))
    model.settle()
    model.apply(plan_liveness(model.store, Signs({}, 0.0), LIMITS, 10.0, model.now_unix_ms))
    assert {task.status.state for task in model.tasks()} == {objects.TASK_STATE_LOST}
    assert not any(task.status.ready for task in model.tasks())
    (node,) = model.store.table(objects.Node)
    assert node.state_message == "not heard of for more than 3 s"
    assert len(plan_liveness(model.store, Signs({}, 0.0), LIMITS, 11.0, model.now_unix_ms)) == 0
