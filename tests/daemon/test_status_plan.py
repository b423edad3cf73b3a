"""Reports of hosts: forward only, believed only about their own tasks, and an address is freed once."""

from __future__ import annotations

import pytest

from daemon.api.events_plan import events_of
from daemon.leader.status_plan import StatusMerge, merge_status
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskReport
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec

ASSIGNED, PREPARING, RUNNING = (
    objects.TASK_STATE_ASSIGNED,
    objects.TASK_STATE_PREPARING,
    objects.TASK_STATE_RUNNING,
)
EXITED, FAILED, LOST = objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST
PENDING = objects.TASK_STATE_PENDING


def one_task() -> tuple[ClusterModel, objects.Task]:
    model = ClusterModel(2)
    model.deploy(app_spec(web=service_spec(1)))
    model.plan()
    return model, model.tasks()[0]


@pytest.mark.parametrize(
    ("known", "reported", "expected"),
    [
        (ASSIGNED, RUNNING, RUNNING),
        (RUNNING, PREPARING, RUNNING),
        (RUNNING, EXITED, EXITED),
        (EXITED, FAILED, EXITED),
        (EXITED, RUNNING, EXITED),
        (LOST, RUNNING, LOST),
        (RUNNING, LOST, RUNNING),
        (ASSIGNED, PENDING, ASSIGNED),
    ],
)
def test_states_only_move_forward(known: int, reported: int, expected: int) -> None:
    status = objects.TaskStatus(state=known)  # type: ignore[arg-type]
    merge_status(status, objects.TaskStatus(state=reported), 5)  # type: ignore[arg-type]
    assert status.state == expected


def test_readiness_comes_and_goes_while_running_only() -> None:
    status = objects.TaskStatus(state=RUNNING, ready=True)
    merge_status(status, objects.TaskStatus(state=RUNNING, ready=False), 5)
    assert not status.ready
    merge_status(status, objects.TaskStatus(state=EXITED, ready=True), 6)
    assert not status.ready
    assert status.finished_unix_ms == 6


def test_the_same_report_again_is_no_transaction() -> None:
    model, task = one_task()
    report = TaskReport(task_id=task.meta.id, status=objects.TaskStatus(state=RUNNING, ready=True))
    for expected in (1, 0):
        model.now_unix_ms += 10
        merge = StatusMerge(model.store, model.now_unix_ms)
        merge.add(task.node_id, [report])
        builder = merge.builder()
        assert len(builder) == expected
        if expected:
            model.apply(builder)


def test_reports_of_unknown_tasks_and_of_other_hosts_are_ignored() -> None:
    model, task = one_task()
    other = next(node.meta.id for node in model.store.table(objects.Node) if node.meta.id != task.node_id)
    merge = StatusMerge(model.store, 1)
    merge.add(other, [TaskReport(task_id=task.meta.id, status=objects.TaskStatus(state=FAILED), gone=True)])
    merge.add(task.node_id, [TaskReport(task_id="nobody", status=objects.TaskStatus(state=RUNNING))])
    assert len(merge.builder()) == 0


def test_gone_frees_the_address_even_without_an_end_and_only_once() -> None:
    model, task = one_task()
    merge = StatusMerge(model.store, 7)
    merge.add(task.node_id, [TaskReport(task_id=task.meta.id, status=objects.TaskStatus(state=RUNNING))])
    merge.add(task.node_id, [TaskReport(task_id=task.meta.id, status=objects.TaskStatus(state=RUNNING), gone=True)])
    model.apply(merge.builder())
    (after,) = model.tasks()
    assert after.status.state == FAILED
    assert after.address == ""
    assert model.store.table(objects.Lease).unique("name", f"address/{task.address}") is None
    merge = StatusMerge(model.store, 8)
    merge.add(task.node_id, [TaskReport(task_id=task.meta.id, gone=True)])
    assert len(merge.builder()) == 0


def test_events_tell_the_story_of_a_task() -> None:
    model = ClusterModel(1)
    model.fails = lambda task: model.now_unix_ms > 1_005_000
    model.batches.clear()
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    model.now_unix_ms = 1_006_000
    model.host_step()
    model.plan()
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED)
    told = [
        (event.kind, event.action, event.subject, event.warning)
        for batch in model.batches
        for event in events_of(batch)
        if event.kind in ("task", "service", "node")
    ]
    assert told == [
        ("service", "created", "shop/web", False),
        ("task", "assigned", "shop/web.1", False),
        ("task", "running", "shop/web.1", False),
        ("task", "ready", "shop/web.1", False),
        ("task", "failed", "shop/web.1", True),
        ("task", "pending", "shop/web.1", True),
        ("node", "cordoned", "host-1", False),
    ]
