"""Scaling, restarts, lost hosts, drains and removal: what the orchestrator's passes lead to."""

from __future__ import annotations

import time
from typing import Any

from daemon.deploying.node_changes_plan import plan_remove_node
from daemon.deploying.service_changes_plan import plan_remove_app, plan_scale
from daemon.leader.liveness_plan import Limits, Signs, plan_liveness
from daemon.orchestration.orchestrator_plan import plan
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume

DRAINING = objects.AVAILABILITY_DRAINING
ACTIVE = objects.AVAILABILITY_ACTIVE


def deployed(model: ClusterModel, **services: Any) -> ClusterModel:
    volumes = {mount.source for spec in services.values() for mount in spec.container.mounts if mount.source}
    model.deploy(app_spec(volumes=sorted(volumes), **services))
    return model


def scale(model: ClusterModel, service: str, replicas: int) -> None:
    model.apply(plan_scale(model.store, model.service(service), replicas)[1])


def take_down(model: ClusterModel, name: str) -> None:
    node = model.store.table(objects.Node).unique("name", name)
    assert node is not None
    others = {one.meta.id: 100.0 for one in model.store.table(objects.Node) if one is not node}
    model.apply(plan_liveness(model.store, Signs(others, 0.0), Limits(3.0, 10.0), 100.0, model.now_unix_ms))


def test_one_pass_after_a_deploy_assigns_every_task_and_the_next_has_nothing_to_do() -> None:
    model = deployed(ClusterModel(), web=service_spec(6))
    planned = model.plan()
    assert len(planned.builder) == 12  # each task with its address
    tasks = model.tasks()
    assert {task.status.state for task in tasks} == {objects.TASK_STATE_ASSIGNED}
    assert model.hosts() == ["host-1", "host-1", "host-2", "host-2", "host-3", "host-3"]
    assert len({task.address for task in tasks}) == 6
    assert all(task.vip and task.networks and task.image_digest for task in tasks)
    again = model.plan()
    assert len(again.builder) == 0
    assert again.wake_at_unix_ms is None


def test_fifty_tasks_on_one_node_are_planned_quickly_in_one_transaction() -> None:
    model = deployed(ClusterModel(1), web=service_spec(50))
    took_s = []
    for _ in range(3):  # a collector of garbage may come once
        started_s = time.thread_time()
        planned = plan(model.store, model.now_unix_ms, model.new_id)
        took_s.append(time.thread_time() - started_s)
        assert len(planned.builder) == 100
    assert min(took_s) < 0.25  # about 10 ms; wide for a busy machine


def test_scaling_down_stops_the_highest_slots_and_up_makes_new_ones() -> None:
    model = deployed(ClusterModel(), web=service_spec(4))
    model.settle()
    scale(model, "web", 2)
    model.plan()
    assert [task.slot for task in model.alive()] == [1, 2]
    stopped = [task for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED]
    assert {task.desired_message for task in stopped} == {"scaled down to 2"}
    model.settle()
    assert [task.meta.name for task in model.tasks()] == ["web.1", "web.2"]
    scale(model, "web", 3)
    model.settle()
    assert len(model.serving()) == 3


def test_a_task_that_fails_is_followed_with_growing_delays_and_counts_afresh_after_a_long_run() -> None:
    model = deployed(ClusterModel(1), web=service_spec())
    model.fails = lambda task: True
    waits = []
    for _ in range(6):
        planned = model.plan()
        while model.host_step():
            planned = model.plan()
        assert planned.wake_at_unix_ms is not None
        waits.append(planned.wake_at_unix_ms - model.now_unix_ms)
        (pending,) = model.alive()
        assert pending.attempt == len(waits)
        assert "exit code 1" in pending.status.message
        model.now_unix_ms = planned.wake_at_unix_ms
    assert waits == [500, 1_000, 2_000, 4_000, 8_000, 16_000]
    model.fails = lambda task: False
    model.plan()
    model.host_step()
    model.now_unix_ms += 60_000
    (running,) = model.serving()
    assert running.attempt == 6
    status = objects.TaskStatus(
        state=objects.TASK_STATE_FAILED,
        started_unix_ms=running.status.started_unix_ms,
        finished_unix_ms=model.now_unix_ms,
    )
    failed = objects.Task()
    failed.CopyFrom(running)
    failed.status.CopyFrom(status)

    model.apply(TransactionBuilder().update(failed))
    model.plan()
    assert [task.attempt for task in model.alive()] == [1]
    history = [task for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED]
    assert len(history) <= 4


def test_a_host_on_which_a_service_keeps_failing_is_left() -> None:
    model = deployed(ClusterModel(2), web=service_spec())
    model.fails = lambda task: task.node_id == "node-host-1"
    model.settle()
    assert [model.node_of(task).meta.name for task in model.serving()] == ["host-2"]


def test_tasks_that_are_done_are_not_started_again() -> None:
    for condition in (objects.RestartPolicy.CONDITION_NONE, objects.RestartPolicy.CONDITION_ON_FAILURE):
        model = deployed(ClusterModel(1), job=service_spec(restart=objects.RestartPolicy(condition=condition)))
        model.plan()
        model.host_step()
        (task,) = model.tasks()
        done = objects.Task()
        done.CopyFrom(task)
        done.status.state = objects.TASK_STATE_EXITED

        model.apply(TransactionBuilder().update(done))
        model.settle()
        (task,) = model.tasks()
        assert task.status.state == objects.TASK_STATE_EXITED


def test_max_attempts_is_an_end() -> None:
    policy = objects.RestartPolicy(max_attempts=2)
    model = deployed(ClusterModel(1), web=service_spec(restart=policy))
    model.fails = lambda task: True
    model.settle()
    assert len(model.tasks()) == 3
    assert model.alive() == []


def test_tasks_of_a_host_that_is_down_are_replaced_in_the_same_pass_and_stopped_when_it_returns() -> None:
    model = deployed(ClusterModel(), web=service_spec(3))
    model.settle()
    take_down(model, "host-2")
    assert len(model.serving()) == 2
    model.plan()
    model.host_step()
    assert len(model.serving()) == 3
    (lost,) = [task for task in model.tasks() if task.status.state == objects.TASK_STATE_LOST]
    assert lost.desired == objects.DESIRED_STATE_STOPPED
    assert lost.address  # it may still run there: its address is not free
    model.settle()
    model.change_node("host-2", state=objects.NODE_STATE_READY)
    model.settle()
    assert [task for task in model.tasks() if task.status.state == objects.TASK_STATE_LOST and task.address] == []
    assert len(model.serving()) == 3


def test_a_drain_moves_every_task_without_one_less_serving() -> None:
    model = deployed(ClusterModel(), web=service_spec(9), api=service_spec(2))
    model.settle()
    model.change_node("host-1", availability=DRAINING)
    for _ in range(40):
        planned = model.plan()
        assert len(model.serving("web")) >= 9
        assert len(model.serving("api")) >= 2
        moving = [task for task in model.alive("web") if not task.status.ready]
        assert len(moving) <= 4
        if not model.host_step() and not len(planned.builder) and planned.wake_at_unix_ms is None:
            break
        model.now_unix_ms += 600
    assert "host-1" not in model.hosts()
    assert len(model.serving()) == 11


def test_a_drain_without_room_elsewhere_leaves_the_task_and_says_why() -> None:
    resources = objects.Resources(memory_reserved_bytes=3 * 1024**3)
    model = deployed(ClusterModel(2), web=service_spec(2, resources=resources))
    model.settle()
    model.change_node("host-1", availability=DRAINING)
    model.settle()
    assert len(model.serving()) == 2
    (pending,) = [task for task in model.alive() if not task.node_id]
    assert "host-1 is draining" in pending.status.message
    assert "host-2 has less than 3 GiB of memory left to reserve (it has 1 GiB)" in pending.status.message
    model.change_node("host-1", availability=ACTIVE)
    model.settle()
    assert len(model.alive()) == 2


def test_a_task_with_a_volume_is_drained_last_and_comes_back_where_its_data_is() -> None:
    model = deployed(ClusterModel(2), db=with_volume(service_spec(), "data"), web=service_spec(2))
    model.settle()
    (db,) = model.serving("db")
    home = model.node_of(db).meta.name
    model.change_node(home, availability=DRAINING)
    model.plan()
    assert model.serving("db") == [db]  # web has not been moved yet
    model.settle()
    (pending,) = model.alive("db")
    assert pending.status.message == f"bound to {home} by volume data; {home} is draining"
    assert len(model.serving("web")) == 2
    model.change_node(home, availability=ACTIVE)
    model.settle()
    (db,) = model.serving("db")
    assert model.node_of(db).meta.name == home


def test_a_volume_keeps_its_task_on_a_host_that_is_down_until_that_one_is_back_and_clean() -> None:
    model = deployed(ClusterModel(2), db=with_volume(service_spec(), "data"))
    model.settle()
    home = model.hosts("db")[0]
    take_down(model, home)
    model.settle()
    (pending,) = model.alive("db")
    assert pending.status.message == f"bound to {home} by volume data; {home} is down"
    model.change_node(home, state=objects.NODE_STATE_READY)
    model.plan()
    (pending,) = model.alive("db")
    assert "waits until the task of db.1 before it has ended" in pending.status.message
    model.settle()
    assert model.hosts("db") == [home]


def test_a_service_waits_for_what_it_depends_on_only_until_it_was_up_once() -> None:
    depends = objects.Dependency(service="db", condition=objects.Dependency.CONDITION_HEALTHY)
    model = deployed(ClusterModel(), db=service_spec(), web=service_spec(2, depends_on=[depends]))
    model.plan()
    assert {task.status.message for task in model.tasks("web")} == {"waits until service db is healthy"}
    model.settle()
    assert len(model.serving("web")) == 2
    model.unready = lambda task: task.service == "db"
    model.host_step()
    scale(model, "web", 3)
    model.settle()
    assert len(model.serving("web")) == 3


def test_an_image_that_is_loaded_later_starts_what_waits_for_it() -> None:
    model = ClusterModel()
    reply = model.deploy(app_spec(web=service_spec(2, image="redis:7")))
    assert "image redis:7 is not in the cluster" in reply.warnings[0]
    model.plan()
    assert {task.status.message for task in model.tasks()} == {
        "image redis:7 is not in the cluster: pull it with `fairway image pull redis:7`, or load it with "
        "`fairway image load FILE`"
    }
    model.load_image("docker.io/library/redis:7", "b")
    model.settle()
    assert {task.image_digest for task in model.serving()} == {"sha256:" + "b" * 64}
    assert model.service("web").generation == 1


def test_a_removed_app_leaves_no_task_lease_or_network_and_its_volumes_only_if_not_asked_for() -> None:
    for volumes in (False, True):
        model = deployed(ClusterModel(), db=with_volume(service_spec(), "data"), web=service_spec(3))
        model.settle()
        names, builder = plan_remove_app(
            model.store, control.RemoveAppRequest(app="shop", volumes=volumes), model.now_unix_ms
        )
        model.apply(builder)
        assert names == ["db", "web"]
        model.settle()
        for kind in (objects.Task, objects.Service, objects.Lease, objects.Network, objects.App):
            assert len(model.store.table(kind)) == 0, kind
        assert len(model.store.table(objects.Volume)) == (0 if volumes else 1)


def test_removing_an_app_does_not_wait_for_a_host_that_is_down() -> None:
    model = deployed(ClusterModel(), web=service_spec(3))
    model.settle()
    take_down(model, "host-3")
    model.apply(plan_remove_app(model.store, control.RemoveAppRequest(app="shop"), 0)[1])
    model.settle()
    assert len(model.store.table(objects.Service)) == 0
    assert len(model.tasks()) == 1
    model.apply(plan_remove_node(model.store, control.RemoveNodeRequest(node="host-3", force=True))[1])
    model.settle()
    assert len(model.tasks()) == 0
    assert len(model.store.table(objects.Lease)) == 0


def test_what_is_deployed_again_while_it_is_being_removed_comes_back() -> None:
    model = deployed(ClusterModel(), web=service_spec(2))
    model.settle()
    model.apply(plan_remove_app(model.store, control.RemoveAppRequest(app="shop"), 0)[1])
    model.plan()
    assert model.alive() == []
    model.deploy(app_spec(web=service_spec(2)))
    model.settle()
    assert len(model.serving()) == 2
