"""Global services: one task on each host that may have one, as hosts come, go, drain and change."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.deploying.service_changes_plan import plan_scale
from daemon.errors import Refused
from daemon.orchestration.task_states import named_volumes
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume


def everywhere(version: int = 1, **fields: Any) -> objects.ServiceSpec:
    spec = service_spec(0, kind=objects.SERVICE_KIND_GLOBAL, **fields)
    spec.container.environment["VERSION"] = str(version)
    return spec


def deployed(spec: objects.ServiceSpec, nodes: int = 3) -> ClusterModel:
    model = ClusterModel(nodes)
    model.deploy(app_spec(agent=spec))
    model.settle()
    return model


def test_each_host_has_one_task_and_a_host_that_joins_gets_one() -> None:
    model = deployed(everywhere())
    assert model.hosts() == ["host-1", "host-2", "host-3"]
    model.add_node("host-4")
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3", "host-4"]


def test_a_drained_host_loses_its_task_and_has_it_back_afterwards() -> None:
    model = deployed(everywhere())
    model.change_node("host-2", availability=objects.AVAILABILITY_DRAINING)
    model.settle()
    assert model.hosts() == ["host-1", "host-3"]
    model.change_node("host-2", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3"]


def test_a_host_that_is_down_is_not_waited_for_and_gets_its_task_when_it_is_back() -> None:
    model = deployed(everywhere())
    model.change_node("host-2", state=objects.NODE_STATE_DOWN)
    model.settle()
    assert model.hosts() == ["host-1", "host-3"]
    model.change_node("host-2", state=objects.NODE_STATE_READY)
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3"]


def test_a_cordoned_host_keeps_its_task_and_gets_none() -> None:
    model = deployed(everywhere())
    model.change_node("host-2", availability=objects.AVAILABILITY_CORDONED)
    model.add_node("host-4", availability=objects.AVAILABILITY_CORDONED)
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3"]


def test_constraints_are_followed_as_labels_change() -> None:
    model = deployed(everywhere(constraints=["node.labels.disk == ssd"]))
    assert model.hosts() == []
    model.change_node("host-1", meta=objects.Meta(labels={"disk": "ssd"}))
    model.change_node("host-2", meta=objects.Meta(labels={"disk": "ssd"}))
    model.settle()
    assert model.hosts() == ["host-1", "host-2"]
    model.change_node("host-1", meta=objects.Meta(labels={"disk": "hdd"}))
    model.plan()
    (stopped,) = (task for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED)
    assert stopped.desired_message == "host-1 does not match node.labels.disk == ssd"
    model.settle()
    assert model.hosts() == ["host-2"]


def test_an_update_goes_host_by_host_and_no_host_is_ever_without() -> None:
    model = deployed(everywhere())
    model.deploy(app_spec(agent=everywhere(2)))
    for _ in range(40):
        planned = model.plan()
        assert {model.node_of(task).meta.name for task in model.serving()} == {"host-1", "host-2", "host-3"}
        assert len(model.alive()) <= 4
        if not model.host_step() and not len(planned.builder) and planned.wake_at_unix_ms is None:
            break
        model.now_unix_ms += 600
    assert [task.spec.container.environment["VERSION"] for task in model.serving()] == ["2", "2", "2"]


def test_a_host_without_room_says_so_and_no_other_takes_its_task() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec(agent=everywhere(resources=objects.Resources(cpu_reserved_millis=3000))))
    model.deploy(app_spec("other", big=service_spec(1, resources=objects.Resources(cpu_reserved_millis=3000))))
    model.settle()
    (big,) = model.tasks("big")
    assert not big.node_id
    model.add_node("host-3")
    model.settle()
    assert model.hosts("big") == ["host-3"]
    assert model.hosts("agent") == ["host-1", "host-2"]
    (pending,) = (task for task in model.alive() if not task.node_id)
    assert pending.status.message.startswith("host-3, which it is for, has less than 3 CPU left to reserve")


def test_each_host_has_volumes_of_its_own() -> None:
    model = ClusterModel(3)
    model.deploy(app_spec(agent=with_volume(everywhere(), "data"), volumes=["data"]))
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3"]
    held = {volume.meta.name: volume.node_id for volume in model.store.table(objects.Volume) if volume.node_id}
    assert held == {task.spec.container.mounts[0].source: task.node_id for task in model.alive()}
    assert sorted(held) == ["data.1", "data.2", "data.3"]
    assert all(named_volumes(task.spec) == [f"data.{task.slot}"] for task in model.alive())


def test_a_replicated_service_becomes_global_and_back() -> None:
    model = ClusterModel(3)
    model.deploy(app_spec(agent=service_spec(5)))
    model.settle()
    reply = model.deploy(app_spec(agent=everywhere()))
    assert "mode replicated -> global" in reply.changes[0].reasons
    assert (reply.changes[0].replicas_before, reply.changes[0].replicas_after) == (5, 3)
    model.settle()
    assert model.hosts() == ["host-1", "host-2", "host-3"]
    model.deploy(app_spec(agent=service_spec(2)))
    model.settle()
    assert len(model.serving()) == 2


def test_it_cannot_be_scaled() -> None:
    model = deployed(everywhere())
    with pytest.raises(Refused, match="cannot be scaled: the number of its tasks is given by the hosts"):
        plan_scale(model.store, model.service("agent"), 2)
