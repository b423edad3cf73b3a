"""Stateful services: volumes of each slot, one task of a slot at a time, started and stopped in their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.service_changes_plan import plan_remove_service, plan_scale
from daemon.errors import Refused
from daemon.orchestration.task_states import ended, gone
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume

STEPS_MAX = 80


def stateful(replicas: int = 3, version: int = 1, **fields: Any) -> objects.ServiceSpec:
    spec = service_spec(replicas, stateful=objects.Stateful(), **fields)
    spec.container.environment["VERSION"] = str(version)
    return spec


def deployed(spec: objects.ServiceSpec) -> ClusterModel:
    model = ClusterModel(3)
    model.deploy(app_spec(db=spec, volumes=["data"]))
    return model


def holders(model: ClusterModel, slot: int) -> list[objects.Task]:
    """Tasks of a slot of which something may be on a host."""
    return [task for task in model.tasks("db") if task.slot == slot and task.node_id and not gone(task)]


def step(model: ClusterModel) -> bool:
    planned = model.plan()
    for slot in range(1, 6):
        assert len(holders(model, slot)) <= 1
    moved = model.host_step()
    model.now_unix_ms += 600
    return bool(moved or len(planned.builder) or planned.wake_at_unix_ms is not None)


def rest(model: ClusterModel) -> None:
    for _ in range(STEPS_MAX):
        if not step(model):
            return
    raise AssertionError("the cluster does not come to rest")


def test_slots_start_one_after_the_other_each_with_its_own_volume() -> None:
    model = deployed(with_volume(stateful(), "data"))
    seen = []
    for _ in range(30):
        going = step(model)
        assigned = sorted(task.slot for task in model.alive() if task.node_id)
        assert all(task.status.ready for task in model.alive() if task.node_id and task.slot < max(assigned))
        seen.append(assigned)
        if not going:
            break
    assert [1] in seen
    assert [1, 2] in seen
    assert seen[-1] == [1, 2, 3]
    held = {volume.meta.name for volume in model.store.table(objects.Volume) if volume.node_id}
    assert held == {"data.1", "data.2", "data.3"}


def test_a_slot_waits_for_those_before_it_and_says_so() -> None:
    model = deployed(stateful())
    model.unready = lambda task: task.slot == 1
    for _ in range(10):
        step(model)
    waiting = {task.slot: task.status.message for task in model.alive() if not task.node_id}
    assert waiting[2] == waiting[3] == "waits until db.1 is ready: its tasks start one after the other"


def test_unordered_slots_start_at_once() -> None:
    model = deployed(service_spec(3, stateful=objects.Stateful(unordered=True)))
    model.plan()
    assert len([task for task in model.alive() if task.node_id]) == 3


def test_scaling_down_and_removing_stop_the_last_slot_first() -> None:
    model = deployed(stateful(4))
    model.settle()
    model.apply(plan_scale(model.store, model.service("db"), 2)[1])
    assert leaving(model) == [4, 3]
    model.apply(plan_remove_service(model.store, model.service("db")))
    assert leaving(model) == [2, 1]
    assert not model.tasks()


def leaving(model: ClusterModel) -> list[int]:
    """The slots in the order in which they are told to stop, never two at a time."""
    order: list[int] = []
    for _ in range(STEPS_MAX):
        model.plan()
        told = [task for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED and not ended(task)]
        assert len(told) <= 1
        order += [task.slot for task in told if task.slot not in order]
        if not step(model):
            break
    return order


def test_an_update_replaces_slot_by_slot_and_keeps_each_ones_volume() -> None:
    model = deployed(with_volume(stateful(), "data"))
    model.settle()
    before = {task.slot: (task.node_id, task.spec.container.mounts[0].source) for task in model.serving()}
    model.deploy(app_spec(db=with_volume(stateful(version=2), "data"), volumes=["data"]))
    for _ in range(STEPS_MAX):
        if not step(model):
            break
        assert len(model.serving()) >= 2
    assert {task.spec.container.environment["VERSION"] for task in model.serving()} == {"2"}
    assert before == {task.slot: (task.node_id, task.spec.container.mounts[0].source) for task in model.serving()}


def test_the_task_of_a_lost_host_is_not_replaced_until_that_host_is_back_or_removed() -> None:
    model = deployed(stateful())
    model.settle()
    (lost,) = (task for task in model.serving() if model.node_of(task).meta.name == "host-2")
    model.change_node("host-2", state=objects.NODE_STATE_DOWN)
    for _ in range(10):
        step(model)
    (waiting,) = (task for task in model.alive() if not task.node_id)
    assert waiting.slot == lost.slot
    assert "waits for host-2, which is down" in waiting.status.message
    assert "fairway node rm --force host-2" in waiting.status.message
    model.change_node("host-2", state=objects.NODE_STATE_READY)
    rest(model)
    assert len(model.serving()) == 3


def test_a_drain_moves_it_by_stopping_first() -> None:
    model = deployed(stateful())
    model.settle()
    model.change_node("host-2", availability=objects.AVAILABILITY_DRAINING)
    rest(model)
    assert len(model.serving()) == 3
    assert "host-2" not in model.hosts()


def test_a_global_service_cannot_be_stateful() -> None:
    with pytest.raises(Refused, match="stateful and not replicated"):
        deployed(stateful(0, kind=objects.SERVICE_KIND_GLOBAL))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_no_slot_has_two_holders(data: st.DataObject) -> None:
    model = deployed(stateful())
    version = 1
    for _ in range(12):
        match data.draw(st.sampled_from(["down", "up", "drain", "active", "deploy", "scale", "wait", "wait"])):
            case "down":
                model.change_node("host-2", state=objects.NODE_STATE_DOWN)
            case "up":
                model.change_node("host-2", state=objects.NODE_STATE_READY)
            case "drain":
                model.change_node("host-3", availability=objects.AVAILABILITY_DRAINING)
            case "active":
                model.change_node("host-3", availability=objects.AVAILABILITY_ACTIVE)
            case "deploy":
                version += 1
                model.deploy(app_spec(db=stateful(version=version), volumes=["data"]))
            case "scale":
                replicas = data.draw(st.integers(1, 4))
                model.apply(plan_scale(model.store, model.service("db"), replicas)[1])
        step(model)
    model.change_node("host-2", state=objects.NODE_STATE_READY)
    model.change_node("host-3", availability=objects.AVAILABILITY_ACTIVE)
    rest(model)
    assert len(model.serving()) == model.service("db").spec.replicas


def test_a_service_that_becomes_stateful_gives_each_slot_its_one_task() -> None:
    model = deployed(service_spec(2))
    rest(model)
    model.deploy(app_spec(db=with_volume(stateful(2, version=2), "data"), volumes=["data"]))
    rest(model)
    assert {task.spec.HasField("stateful") for task in model.serving("db")} == {True}
    assert sorted(task.slot for task in model.serving("db")) == [1, 2]
