"""Priorities: who is placed first, what is stopped for whom, and that nothing is stopped in vain."""

from __future__ import annotations

from typing import Any

from daemon.deploying.deploy_plan import plan_deploy
from daemon.orchestration.why_plan import why
from proto import objects_pb2 as objects
from proto import why_pb2
from raft.features import WORKLOADS_LEVEL
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec


def _service(priority: int, replicas: int = 1, memory: int = GIB, **fields: Any) -> objects.ServiceSpec:
    spec = service_spec(replicas, resources=objects.Resources(memory_reserved_bytes=memory), **fields)
    if priority:
        spec.precedence.priority = priority
    return spec


def _stopped(model: ClusterModel) -> list[str]:
    """Names of tasks that were stopped for others, and for which."""
    return sorted(f"{task.meta.name} for {task.preempted.task}" for task in model.tasks() if task.HasField("preempted"))


def test_the_highest_priority_is_placed_first_and_then_the_oldest() -> None:
    model = ClusterModel(1)
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED)
    model.deploy(app_spec("one", low=_service(-5, 4)))
    model.settle()
    model.now_unix_ms += 1
    model.deploy(app_spec("two", high=_service(7, 2), first=_service(0)))
    model.settle()
    model.now_unix_ms += 1
    model.deploy(app_spec("three", second=_service(0)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)
    model.settle()
    assert sorted(task.meta.name for task in model.serving()) == ["first.1", "high.1", "high.2", "second.1"]
    assert not _stopped(model)


def test_the_lowest_priority_is_stopped_as_far_as_needed_and_runs_again_where_there_is_room() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec("shop", batch=_service(-10, 4), web=_service(0, 4)))
    model.settle()
    model.deploy(app_spec("pay", pay=_service(100, 1, 2 * GIB)))
    model.settle()
    assert len(model.serving("pay")) == 1
    assert len(model.serving("web")) == 4
    assert len(model.serving("batch")) == 2
    assert len(_stopped(model)) == 2
    assert all("for pay/pay.1" in each and each.startswith("batch.") for each in _stopped(model))
    victim = next(task for task in model.tasks("batch") if task.HasField("preempted"))
    assert (victim.preempted.priority, victim.preempted.own_priority) == (100, -10)
    assert victim.desired_message == "makes room for pay/pay.1, whose priority is 100; its own is -10"
    waiting = [task for task in model.alive("batch") if not task.node_id]
    assert len(waiting) == 2 and all("memory" in task.status.message for task in waiting)

    model.add_node("host-3")
    model.settle()
    assert len(model.serving("batch")) == 4


def test_tasks_of_the_same_priority_are_never_stopped_and_nothing_is_stopped_in_vain() -> None:
    model = ClusterModel(2)
    model.deploy(app_spec("shop", batch=_service(5, 8)))
    model.settle()
    model.deploy(app_spec("pay", pay=_service(5), huge=_service(9, 1, 5 * GIB)))
    model.settle()
    elsewhere = _service(9, constraints=["node.labels.disk == ssd"])
    model.deploy(app_spec("more", elsewhere=elsewhere))
    model.settle()
    assert len(model.serving("batch")) == 8 and not _stopped(model)


def test_a_service_may_say_that_it_stops_nothing() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec("shop", batch=_service(0, 4)))
    model.settle()
    meek = _service(9)
    meek.precedence.never_preempts = True
    model.deploy(app_spec("pay", meek=meek))
    model.settle()
    assert not model.serving("meek") and not _stopped(model)


def test_room_that_is_being_made_is_nobody_elses() -> None:
    """Between the end of what was stopped and the assignment no task of lower priority takes the place."""
    model = ClusterModel(1)
    model.deploy(app_spec("shop", batch=_service(-1, 2, 2 * GIB)))
    model.settle()
    model.deploy(app_spec("pay", pay=_service(5, 1, 3 * GIB)))
    model.plan()
    (first, second) = _stopped(model)
    assert first.startswith("batch.1") and second.startswith("batch.2")
    (pay,) = model.alive("pay")
    assert not pay.node_id and "have ended, which makes room for it" in pay.status.message
    model.deploy(app_spec("small", small=_service(0, 3)))
    model.settle()
    assert len(model.serving("pay")) == 1
    assert len(model.serving("small")) == 1
    assert len(_stopped(model)) == 2


def test_what_ends_anyway_is_waited_for() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec("shop", old=_service(-1, 2), other=_service(-1, 2)))
    model.settle()
    model.deploy(app_spec("shop", old=_service(-1, 1), other=_service(-1, 2)))
    model.plan()
    model.deploy(app_spec("pay", pay=_service(5)))
    model.settle()
    assert len(model.serving("pay")) == 1 and not _stopped(model)


def test_tasks_that_leave_others_ready_go_before_the_last_of_a_service_and_before_data() -> None:
    model = ClusterModel(1)
    kept = _service(0)
    kept.container.mounts.add(kind=objects.Mount.KIND_VOLUME, source="data", target="/data")
    model.deploy(app_spec("shop", ["data"], alone=_service(0), two=_service(0, 2), kept=kept))
    model.settle()
    model.deploy(app_spec("pay", pay=_service(5)))
    model.settle()
    assert [each.split(".")[0] for each in _stopped(model)] == ["two"]


def test_a_disruption_budget_is_kept() -> None:
    model = ClusterModel(1)
    bounded = _service(0, 4)
    bounded.disruption_budget.available_min = 3
    model.deploy(app_spec("shop", bounded=bounded))
    model.settle()
    model.deploy(app_spec("pay", pay=_service(5, 1, 2 * GIB)))
    model.settle()
    assert len(model.serving("bounded")) == 4 and not _stopped(model)
    model.deploy(app_spec("pay", pay=_service(5)))
    model.settle()
    assert len(model.serving("bounded")) == 3 and len(model.serving("pay")) == 1


def test_a_port_is_made_free_too() -> None:
    def with_port(spec: objects.ServiceSpec) -> objects.ServiceSpec:
        spec.ports.add(protocol="tcp", target=80, published=80, mode=objects.PortSpec.MODE_HOST)
        return spec

    model = ClusterModel(1)
    model.deploy(app_spec("shop", low=with_port(_service(0)), other=_service(-1)))
    model.settle()
    model.deploy(app_spec("pay", pay=with_port(_service(5))))
    model.settle()
    assert _stopped(model) == ["low.1 for pay/pay.1"]
    assert len(model.serving("pay")) == 1 and len(model.serving("other")) == 1


def test_a_device_is_made_free_by_the_task_that_holds_it() -> None:
    def with_card(spec: objects.ServiceSpec) -> objects.ServiceSpec:
        spec.resources.devices.add(kind="acme.example/card", count=1)
        return spec

    model = ClusterModel(1)
    cards = [objects.HostDevice(kind="acme.example/card", name="0", units=["/dev/card0"])]
    model.change_node("host-1", description=objects.NodeDescription(devices=cards))
    model.deploy(app_spec("shop", train=with_card(_service(0)), other=_service(-1)))
    model.settle()
    model.deploy(app_spec("pay", pay=with_card(_service(5)), more=with_card(_service(5))))
    model.settle()
    assert _stopped(model) in (["train.1 for pay/pay.1"], ["train.1 for pay/more.1"])
    assert len(model.serving("pay") + model.serving("more")) == 1 and len(model.serving("other")) == 1


def test_another_priority_needs_no_new_tasks() -> None:
    model = ClusterModel(1)
    model.deploy(app_spec("shop", web=_service(0, 4)))
    model.settle()
    before = {task.meta.id for task in model.serving()}
    app = app_spec("shop", web=_service(3, 4))
    _, builder, _ = plan_deploy(model.store, app, model.now_unix_ms, model.new_id)
    assert builder.build("id", "test", 1).feature_level == WORKLOADS_LEVEL
    (change,) = model.deploy(app).changes
    assert (change.tasks_replaced, list(change.reasons)) == (0, ["priority 0 -> 3"])
    model.deploy(app_spec("pay", pay=_service(2)))
    model.settle()
    assert {task.meta.id for task in model.serving()} == before


def test_a_job_that_was_stopped_for_another_is_done_when_it_has_run_to_its_end() -> None:
    model = ClusterModel(1)
    job = _service(-1, 1, 4 * GIB, kind=objects.SERVICE_KIND_JOB)
    model.deploy(app_spec("shop", job=job))
    for _ in range(4):
        model.plan()
        model.host_step()
    model.deploy(app_spec("pay", pay=_service(5)))
    model.settle()
    (run,) = model.service("job").runs
    assert _stopped(model) and not run.outcome
    model.deploy(app_spec("pay", pay=_service(5, 0)))
    model.settle()
    model.completes = lambda task: task.service == "job"
    model.settle()
    (run,) = model.service("job").runs
    assert run.outcome == objects.JobRun.OUTCOME_SUCCEEDED


def test_why_says_whom_it_stops_what_it_waits_for_and_for_whom_one_was_stopped() -> None:
    def ask(target: str) -> why_pb2.WhyTask:
        (entry,) = why(model.store, why_pb2.WhyRequest(target=target), model.now_unix_ms).tasks
        return entry

    model = ClusterModel(1)
    model.deploy(app_spec("shop", batch=_service(-1, 1, 4 * GIB)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED)
    model.deploy(app_spec("pay", pay=_service(5)))
    model.settle()
    assert ask("pay/pay.1").reason == "no host fits: host-1 is cordoned"
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)
    before = ask("pay/pay.1")
    assert list(before.stops) == ["shop/batch.1"] and "the next plan stops shop/batch.1 on host-1" in before.reason
    model.plan()
    during = ask("pay/pay.1")
    assert list(during.stops) == ["shop/batch.1"] and "waits until shop/batch.1 on host-1 has ended" in during.reason
    model.settle()
    after = ask("shop/batch.1")
    assert after.reason.endswith("the task before it was stopped for pay/pay.1 (priority 5 over -1)")
    assert [host.node for host in after.hosts] == ["host-1"]


def test_why_counts_what_those_take_that_come_before() -> None:
    def stops(target: str) -> list[str]:
        (entry,) = why(model.store, why_pb2.WhyRequest(target=target), model.now_unix_ms).tasks
        return list(entry.stops)

    model = ClusterModel(1)
    model.deploy(app_spec("shop", batch=_service(-1, 4)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_CORDONED)
    model.deploy(app_spec("pay", pay=_service(5)))
    model.deploy(app_spec("small", small=_service(0)))
    model.settle()
    model.change_node("host-1", availability=objects.AVAILABILITY_ACTIVE)
    first, second = stops("pay/pay.1"), stops("small/small.1")
    assert len(first) == len(second) == 1 and first != second
    model.settle()
    assert {f"shop/{each.split()[0]}" for each in _stopped(model)} == {*first, *second}
