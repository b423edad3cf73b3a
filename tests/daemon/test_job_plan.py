"""Jobs: every slot succeeds once, retries, parallelism, deadlines, new versions, drains; and schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.job_changes import plan_run_once, plan_trigger
from daemon.errors import Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume

MINUTE_MS = 60_000
SUCCEEDED = objects.JobRun.OUTCOME_SUCCEEDED
FAILED = objects.JobRun.OUTCOME_FAILED
STOPPED = objects.JobRun.OUTCOME_STOPPED
GOING = objects.JobRun.OUTCOME_NONE


def job_spec(completions: int = 1, version: int = 1, tries: int = 2, **fields: Any) -> objects.ServiceSpec:
    fields.setdefault("kind", objects.SERVICE_KIND_JOB)
    restart = objects.RestartPolicy(condition=objects.RestartPolicy.CONDITION_ON_FAILURE, max_attempts=tries)
    spec = service_spec(completions, restart=restart, **fields)
    spec.container.environment["VERSION"] = str(version)
    return spec


def started(spec: objects.ServiceSpec, nodes: int = 3) -> ClusterModel:
    model = ClusterModel(nodes)
    model.completes = lambda task: True
    model.deploy(app_spec(work=spec))
    return model


def outcomes(model: ClusterModel) -> list[tuple[int, int]]:
    return [(run.number, run.outcome) for run in model.service("work").runs]


def pass_time(model: ClusterModel, to_unix_ms: int, step_ms: int = 1_100) -> None:
    while model.now_unix_ms < to_unix_ms:
        model.plan()
        model.host_step()
        model.now_unix_ms += step_ms


def test_each_completion_is_one_task_that_succeeded() -> None:
    model = started(job_spec(5))
    model.settle()
    (run,) = model.service("work").runs
    assert (run.outcome, run.wanted, run.succeeded) == (SUCCEEDED, 5, 5)
    assert sorted(task.slot for task in model.tasks()) == [1, 2, 3, 4, 5]
    assert not model.alive()


def test_no_more_run_at_once_than_the_parallelism() -> None:
    model = started(job_spec(5, job=objects.Job(parallelism=2)))
    seen = set()
    for _ in range(40):
        model.plan()
        assert len(model.alive()) <= 2
        seen.add(len(model.alive()))
        model.host_step()
        model.now_unix_ms += 1_100
    assert outcomes(model) == [(1, SUCCEEDED)]
    assert 2 in seen


def test_what_fails_is_tried_again_and_what_succeeded_is_not() -> None:
    model = started(job_spec(3))
    model.fails = lambda task: task.slot == 2 and task.attempt < 2
    model.settle()
    assert outcomes(model) == [(1, SUCCEEDED)]
    assert [task.attempt for task in model.tasks() if task.slot == 2] == [0, 1, 2]
    assert len([task for task in model.tasks() if task.slot != 2]) == 2


def test_a_slot_that_fails_for_good_ends_the_run_and_stops_the_others() -> None:
    model = started(job_spec(3, tries=1))
    model.completes = lambda task: False
    model.fails = lambda task: task.slot == 2
    model.settle()
    (run,) = model.service("work").runs
    assert run.outcome == FAILED
    assert run.message == "work.2: it ended with exit code 1"
    assert not model.alive()
    assert len([task for task in model.tasks() if task.slot == 2]) == 2


def test_a_run_that_is_not_done_within_its_deadline_has_failed() -> None:
    model = started(job_spec(2, job=objects.Job(deadline_ms=5_000)))
    model.completes = lambda task: task.slot == 1
    model.settle()
    (run,) = model.service("work").runs
    assert (run.outcome, run.succeeded) == (FAILED, 1)
    assert "deadline of 5" in run.message
    assert 5_000 <= run.finished_unix_ms - run.started_unix_ms < 7_000
    assert not model.alive()


def test_a_changed_job_runs_anew_and_an_unchanged_one_does_not() -> None:
    model = started(job_spec(2))
    model.settle()
    model.deploy(app_spec(work=job_spec(2)))
    model.settle()
    assert outcomes(model) == [(1, SUCCEEDED)]
    model.deploy(app_spec(work=job_spec(2, version=2)))
    model.settle()
    assert outcomes(model) == [(1, SUCCEEDED), (2, SUCCEEDED)]
    reply = model.deploy(app_spec(work=job_spec(3, version=2)))
    assert "completions 2 -> 3" in reply.changes[0].reasons
    model.settle()
    assert outcomes(model)[-1] == (3, SUCCEEDED)
    last = [task for task in model.tasks() if task.desired == objects.DESIRED_STATE_RUNNING]
    assert [task.run for task in last] == [3, 3, 3]


def test_a_new_version_stops_the_run_of_the_old_one() -> None:
    model = started(job_spec(2))
    model.completes = lambda task: task.spec.container.environment["VERSION"] == "2"
    pass_time(model, model.now_unix_ms + 5_000)
    model.deploy(app_spec(work=job_spec(2, version=2)))
    model.settle()
    assert outcomes(model) == [(1, STOPPED), (2, SUCCEEDED)]


def test_a_task_on_a_host_that_is_drained_or_lost_runs_again_elsewhere_and_that_is_no_failure() -> None:
    for change in ({"availability": objects.AVAILABILITY_DRAINING}, {"state": objects.NODE_STATE_DOWN}):
        model = started(job_spec(3, tries=1))
        model.completes = lambda task: False
        pass_time(model, model.now_unix_ms + 5_000)
        model.change_node("host-2", **change)
        pass_time(model, model.now_unix_ms + 5_000)
        assert len(model.alive()) == 3
        assert "host-2" not in model.hosts()
        model.completes = lambda task: True
        model.settle()
        assert outcomes(model) == [(1, SUCCEEDED)]
        assert all(task.attempt == 0 for task in model.tasks())


def test_a_global_job_runs_once_on_each_host() -> None:
    model = started(job_spec(0, kind=objects.SERVICE_KIND_GLOBAL_JOB, constraints=["node.hostname != host-2"]))
    model.settle()
    (run,) = model.service("work").runs
    assert (run.outcome, run.wanted) == (SUCCEEDED, 2)
    assert sorted(model.node_of(task).meta.name for task in model.tasks()) == ["host-1", "host-3"]
    model.add_node("host-4")
    model.settle()
    assert len(model.tasks()) == 2


def test_only_the_last_runs_are_remembered() -> None:
    model = started(job_spec(job=objects.Job(keep=2)))
    model.settle()
    for _ in range(4):
        model.apply(plan_trigger(model.service("work"), model.now_unix_ms)[1])
        model.settle()
    assert outcomes(model) == [(4, SUCCEEDED), (5, SUCCEEDED)]
    assert {task.run for task in model.tasks()} == {4, 5}


def test_a_run_by_hand_waits_for_the_one_that_goes_on() -> None:
    model = started(job_spec())
    model.completes = lambda task: False
    pass_time(model, model.now_unix_ms + 3_000)
    with pytest.raises(Refused, match=r"is running \(run 1\)"):
        plan_trigger(model.service("work"), model.now_unix_ms)


def test_a_task_that_runs_once_outlives_a_deploy_and_is_removed_some_time_after_its_end() -> None:
    model = ClusterModel(2)
    web = service_spec(2)
    web.ports.add(protocol="tcp", target=80, published=8080)
    model.deploy(app_spec(web=web))
    request = control.RunOnceRequest(command=objects.StringList(values=["true"]), environment={"A": "b"})
    once, builder = plan_run_once(model.store, model.service("web"), request, model.new_id)
    model.apply(builder)
    model.completes = lambda task: task.run > 0
    pass_time(model, model.now_unix_ms + 5_000)
    (task,) = model.tasks(once.meta.name)
    assert task.status.state == objects.TASK_STATE_EXITED
    assert list(task.spec.container.command.values) == ["true"]
    assert (task.spec.container.environment["A"], len(task.spec.ports), task.vip) == ("b", 0, "")
    model.deploy(app_spec(web=web))
    model.plan()
    assert model.tasks(once.meta.name)
    pass_time(model, model.now_unix_ms + 11 * MINUTE_MS, 10_000)
    assert not model.tasks(once.meta.name)
    assert [service.meta.name for service in model.store.table(objects.Service)] == ["web"]


def test_no_task_runs_once_beside_slots_with_volumes_of_their_own() -> None:
    model = ClusterModel(1)
    db = with_volume(service_spec(1, stateful=objects.Stateful()), "data")
    model.deploy(app_spec(db=db, volumes=["data"]))
    with pytest.raises(Refused, match="fairway exec shop/db"):
        plan_run_once(model.store, model.service("db"), control.RunOnceRequest(), model.new_id)


def test_a_service_becomes_a_job_and_back() -> None:
    model = started(service_spec(3))
    model.completes = lambda task: task.run > 0
    model.settle()
    model.deploy(app_spec(work=job_spec(2)))
    model.settle()
    assert outcomes(model) == [(1, SUCCEEDED)]
    assert not model.alive()
    model.deploy(app_spec(work=service_spec(3)))
    model.settle()
    assert len(model.serving()) == 3
    assert not model.service("work").runs


# ---- schedules -----------------------------------------------------------------------------------


def scheduled(cron: str = "*/10 * * * *", **fields: Any) -> ClusterModel:
    model = ClusterModel(2)
    model.now_unix_ms = int(datetime(2026, 3, 1, 12, 1, tzinfo=UTC).timestamp() * 1000)
    model.completes = lambda task: True
    model.deploy(app_spec(work=job_spec(schedule=objects.Schedule(cron=cron, **fields))))
    model.plan()
    return model


def moments(model: ClusterModel) -> list[str]:
    runs = model.service("work").runs
    return [datetime.fromtimestamp(run.moment_unix_ms / 1000, UTC).strftime("%H:%M") for run in runs]


def test_a_job_with_a_schedule_runs_at_its_moments_only() -> None:
    model = scheduled()
    assert not model.service("work").runs
    assert model.plan().wake_at_unix_ms == int(datetime(2026, 3, 1, 12, 10, tzinfo=UTC).timestamp() * 1000)
    pass_time(model, model.now_unix_ms + 25 * MINUTE_MS, 7_000)
    assert moments(model) == ["12:10", "12:20"]
    assert outcomes(model) == [(1, SUCCEEDED), (2, SUCCEEDED)]


def test_a_new_leader_whose_clock_is_behind_runs_no_moment_again() -> None:
    model = scheduled()
    pass_time(model, model.now_unix_ms + 10 * MINUTE_MS)
    model.now_unix_ms -= 3 * MINUTE_MS
    pass_time(model, model.now_unix_ms + 5 * MINUTE_MS)
    assert moments(model) == ["12:10"]


@pytest.mark.parametrize(("run_missed", "expected"), [(False, ["13:10"]), (True, ["13:00", "13:10"])])
def test_moments_at_which_nobody_led(run_missed: bool, expected: list[str]) -> None:
    model = scheduled(run_missed=run_missed)
    model.now_unix_ms += int(timedelta(minutes=64).total_seconds() * 1000)
    pass_time(model, model.now_unix_ms + 7 * MINUTE_MS)
    assert moments(model) == expected


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (objects.Schedule.OVERLAP_FORBID, [(1, GOING)]),
        (objects.Schedule.OVERLAP_ALLOW, [(1, GOING), (2, GOING)]),
        (objects.Schedule.OVERLAP_REPLACE, [(1, STOPPED), (2, GOING)]),
    ],
)
def test_a_moment_comes_while_a_run_goes_on(
    overlap: objects.Schedule.Overlap.ValueType, expected: list[tuple[int, int]]
) -> None:
    model = scheduled(overlap=overlap)
    model.completes = lambda task: False
    pass_time(model, model.now_unix_ms + 22 * MINUTE_MS, 11_000)
    assert outcomes(model) == expected
    assert len(model.alive()) == sum(outcome == GOING for _, outcome in expected)


def test_a_changed_schedule_begins_now_and_runs_nothing_of_the_past() -> None:
    model = scheduled("0 3 * * *")
    reply = model.deploy(app_spec(work=job_spec(schedule=objects.Schedule(cron="*/5 * * * *"))))
    assert "schedule '0 3 * * *' (UTC, skip missed, overlap forbid)" in reply.changes[0].reasons[0]
    pass_time(model, model.now_unix_ms + 6 * MINUTE_MS)
    assert moments(model) == ["12:05"]


def test_a_run_goes_on_with_the_version_that_it_began_with() -> None:
    model = scheduled()
    model.completes = lambda task: False
    pass_time(model, model.now_unix_ms + 10 * MINUTE_MS)
    changed = job_spec(version=2, schedule=objects.Schedule(cron="*/10 * * * *"))
    model.deploy(app_spec(work=changed))
    (task,) = model.alive()
    model.fails = lambda one: one.meta.id == task.meta.id
    pass_time(model, model.now_unix_ms + 3_000)
    model.fails = lambda one: False
    model.completes = lambda one: True
    pass_time(model, model.now_unix_ms + 12 * MINUTE_MS)
    versions = {(one.run, one.spec.container.environment["VERSION"]) for one in model.tasks()}
    assert versions == {(1, "1"), (2, "2")}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (job_spec(schedule=objects.Schedule(cron="0 25 * * *")), "'25' cannot be the hour"),
        (job_spec(schedule=objects.Schedule(cron="0 0 31 2 *")), "there is no such day"),
        (service_spec(1, job=objects.Job(parallelism=2)), "has a job's settings and is none"),
    ],
)
def test_a_job_that_cannot_be_is_refused(spec: objects.ServiceSpec, words: str) -> None:
    with pytest.raises(Refused, match=words):
        started(spec)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_happens_a_run_ends_and_no_slot_has_two_tasks_at_once(data: st.DataObject) -> None:
    completions = data.draw(st.integers(1, 5))
    parallelism = data.draw(st.integers(0, 3))
    model = started(job_spec(completions, tries=3, job=objects.Job(parallelism=parallelism)))
    unlucky = data.draw(st.sets(st.integers(1, completions), max_size=2))
    model.fails = lambda task: task.slot in unlucky and task.attempt < 2
    for _ in range(12):
        model.plan()
        alive = model.alive()
        assert len({task.slot for task in alive}) == len(alive) <= (parallelism or completions)
        model.host_step(data.draw(st.sets(st.sampled_from(["host-1", "host-2", "host-3"]), min_size=1)))
        node = data.draw(st.sampled_from(["host-2", "host-3"]))
        kind = data.draw(st.sampled_from(["down", "ready", "none", "none"]))
        if kind != "none":
            state = objects.NODE_STATE_DOWN if kind == "down" else objects.NODE_STATE_READY
            model.change_node(node, state=state)
        model.now_unix_ms += 1_000
    for node in ("host-2", "host-3"):
        model.change_node(node, state=objects.NODE_STATE_READY)
    model.settle()
    assert outcomes(model) == [(1, SUCCEEDED)]
    (run,) = model.service("work").runs
    assert run.succeeded == run.wanted == completions
    assert not model.alive()
