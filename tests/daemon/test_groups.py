"""Tasks of a group are placed together or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import Refused
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec


def member(replicas: int = 1, memory: int = GIB, priority: int = 0, group: str = "ring") -> objects.ServiceSpec:
    spec = service_spec(replicas, resources=objects.Resources(memory_reserved_bytes=memory))
    spec.precedence.group = group
    spec.precedence.priority = priority
    return spec


def test_nothing_of_a_group_is_placed_before_all_of_it_fits_and_then_all_in_one_transaction() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec("other", other=service_spec(6, resources=objects.Resources(memory_reserved_bytes=GIB))))
    model.settle()
    model.deploy(app_spec("shop", head=member(1, 2 * GIB), worker=member(2)))
    model.settle()
    assert not [task for task in model.alive() if task.app == "shop" and task.node_id]
    said = {task.meta.name: task.status.message for task in model.alive() if task.app == "shop"}
    assert "less than 2 GiB of memory" in said["head.1"] and "its group ring is placed as a whole" in said["head.1"]
    assert "and head.1 is not: no host fits" in said["worker.1"]

    model.add_node("host-3")
    model.plan()
    assert len([task for task in model.alive() if task.app == "shop" and task.node_id]) == 3


def test_a_task_that_failed_does_not_hold_up_the_others_of_its_group() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec("shop", head=member(), worker=member()))
    model.fails = lambda task: task.service == "head"
    for _ in range(4):
        model.plan()
        model.host_step()
    assert len(model.serving("worker")) == 1
    assert any(task.not_before_unix_ms > model.now_unix_ms for task in model.alive("head"))


def test_room_is_made_for_a_whole_group_or_for_nothing_of_it() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec("low", low=service_spec(8, resources=objects.Resources(memory_reserved_bytes=GIB))))
    model.settle()
    model.deploy(app_spec("huge", head=member(1, 5 * GIB, 9), worker=member(2, GIB, 9)))
    model.settle()
    assert len(model.serving("low")) == 8
    model.deploy(app_spec("ring", head=member(1, 3 * GIB, 9), worker=member(2, GIB, 9)))
    model.plan()
    assert not [task for task in model.alive() if task.app == "ring" and task.node_id]
    model.settle()
    assert len([task for task in model.serving() if task.app == "ring"]) == 3
    assert len(model.serving("low")) == 3
    assert sum(task.HasField("preempted") for task in model.tasks("low")) == 5


def test_tasks_of_a_group_that_share_a_volume_are_on_one_host() -> None:
    model = ClusterModel(3)
    head, worker = member(), member()
    for spec in (head, worker):
        spec.container.mounts.add(kind=objects.Mount.KIND_VOLUME, source="data", target="/data")
    model.deploy(app_spec("shop", ["data"], head=head, worker=worker))
    model.settle()
    assert len(model.serving()) == 2 and len(set(model.hosts())) == 1


def test_what_could_never_start_together_is_refused() -> None:
    model = ClusterModel(1)
    waiting = member()
    waiting.depends_on.add(service="head")
    ordered = member(2)
    ordered.stateful.SetInParent()
    cases = [
        ({"head": member(), "worker": waiting}, "it waits for head, and group ring"),
        ({"head": member(priority=1), "worker": member()}, "its priority is not that of"),
        ({"head": ordered}, "start one after the other"),
        ({"head": member(501)}, "at most 500"),
    ]
    for services, words in cases:
        with pytest.raises(Refused, match=words):
            model.deploy(app_spec("shop", (), **services))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2)), min_size=2, max_size=4), st.data())
def test_groups_that_compete_never_block_each_other(groups: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Each holds all or nothing, unless some of it was stopped for others, and none is pending that fits."""
    model = ClusterModel(2)
    for number, (replicas, gib, priority) in enumerate(groups):
        model.deploy(
            app_spec(f"app{number}", head=member(replicas, gib * GIB, priority), worker=member(1, GIB, priority))
        )
        if data.draw(st.booleans()):
            model.plan()
            model.host_step()
    model.settle()
    free = {node.meta.name: 4 for node in model.store.table(objects.Node)}
    for task in model.alive():
        if task.node_id:
            free[model.node_of(task).meta.name] -= task.spec.resources.memory_reserved_bytes // GIB
    assert min(free.values()) >= 0
    for number, (replicas, gib, _) in enumerate(groups):
        if any(task.HasField("preempted") for task in model.tasks() if task.app == f"app{number}"):
            continue
        placed = [bool(task.node_id) for task in model.alive() if task.app == f"app{number}"]
        assert len(placed) == replicas + 1 and len(set(placed)) == 1
        assert all(placed) or not _fit(free, replicas, gib)


def _fit(free: dict[str, int], replicas: int, gib: int) -> bool:
    """Largest first, each where most is free, as the planner does."""
    left = dict(free)
    for size in sorted([gib] * replicas + [1], reverse=True):
        host = max(left, key=lambda name: left[name])
        left[host] -= size
    return min(left.values()) >= 0
