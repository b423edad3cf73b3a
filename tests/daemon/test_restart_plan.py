"""Restart policies, dependencies and the words of changes, case by case."""

from __future__ import annotations

import pytest

from daemon.deploying.app_changes import map_changes
from daemon.orchestration.dependencies import waits_for
from daemon.orchestration.quantities import bytes_text, cpu_text, duration_text, names_text
from daemon.orchestration.restart_plan import after_end, backoff_ms
from proto import objects_pb2 as objects

POLICY = objects.RestartPolicy
EXITED, FAILED, LOST = objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST


@pytest.mark.parametrize(
    ("condition", "state", "exit_code", "again"),
    [
        (POLICY.CONDITION_ANY, EXITED, 0, True),
        (POLICY.CONDITION_ANY, FAILED, 1, True),
        (POLICY.CONDITION_ON_FAILURE, EXITED, 0, False),
        (POLICY.CONDITION_ON_FAILURE, EXITED, 2, True),
        (POLICY.CONDITION_ON_FAILURE, FAILED, 0, True),
        (POLICY.CONDITION_ON_FAILURE, LOST, 0, True),
        (POLICY.CONDITION_NONE, FAILED, 1, False),
        (POLICY.CONDITION_NONE, LOST, 0, False),
    ],
)
def test_conditions(condition: int, state: int, exit_code: int, again: bool) -> None:
    task = objects.Task(status=objects.TaskStatus(state=state, exit_code=exit_code))  # type: ignore[arg-type]
    task.spec.restart.condition = condition  # type: ignore[assignment]
    assert (after_end(task, 0) is not None) is again


def test_delays_double_up_to_five_minutes_from_what_the_policy_says() -> None:
    assert [backoff_ms(500, attempt) for attempt in (0, 1, 2, 3)] == [500, 500, 1000, 2000]
    assert backoff_ms(500, 40) == 300_000
    assert backoff_ms(600_000, 5) == 600_000


def test_a_window_decides_what_counts_as_a_failure_in_a_row() -> None:
    for ran_ms, attempt in ((5_000, 4), (10_000, 1)):
        status = objects.TaskStatus(state=FAILED, started_unix_ms=1_000, finished_unix_ms=1_000 + ran_ms)
        restart = after_end(objects.Task(attempt=3, status=status), 0)
        assert restart is not None
        assert restart.attempt == attempt


@pytest.mark.parametrize(
    ("condition", "state", "ready", "waits"),
    [
        (objects.Dependency.CONDITION_STARTED, objects.TASK_STATE_STARTING, False, True),
        (objects.Dependency.CONDITION_STARTED, objects.TASK_STATE_RUNNING, False, False),
        (objects.Dependency.CONDITION_STARTED, EXITED, False, False),
        (objects.Dependency.CONDITION_HEALTHY, objects.TASK_STATE_RUNNING, False, True),
        (objects.Dependency.CONDITION_HEALTHY, objects.TASK_STATE_RUNNING, True, False),
        (objects.Dependency.CONDITION_COMPLETED, objects.TASK_STATE_RUNNING, True, True),
        (objects.Dependency.CONDITION_COMPLETED, EXITED, False, False),
        (objects.Dependency.CONDITION_COMPLETED, FAILED, False, True),
    ],
)
def test_dependencies(condition: int, state: int, ready: bool, waits: bool) -> None:
    db = objects.Service(meta=objects.Meta(id="db"), spec=objects.ServiceSpec(replicas=1))
    web = objects.Service(meta=objects.Meta(id="web"))
    web.spec.depends_on.add(service="db", condition=condition)
    status = objects.TaskStatus(state=state, ready=ready)  # type: ignore[arg-type]
    task = objects.Task(slot=1, desired=objects.DESIRED_STATE_RUNNING, status=status)
    tasks = {"db": [task], "web": [objects.Task()]}
    assert (waits_for(web, lambda name: db, lambda identifier: tasks[identifier]) is not None) is waits
    tasks["web"].append(objects.Task(node_id="n"))
    assert waits_for(web, lambda name: db, lambda identifier: tasks[identifier]) is None


def test_secrets_are_not_shown() -> None:
    before = {"API_TOKEN": "one", "URL": "redis://u:one@db", "MODE": "x"}
    after = {"API_TOKEN": "two", "URL": "redis://u:two@db", "MODE": "y", "MY_KEY": "three"}
    reasons = map_changes("environment", before, after, hide_secrets=True)
    assert reasons == [
        "environment API_TOKEN changed",
        "environment MODE: x -> y",
        "environment MY_KEY added",
        "environment URL changed",
    ]


def test_amounts_are_readable_and_never_rounded_up() -> None:
    assert [bytes_text(count) for count in (0, 1023, 512 * 1024**2, 8 * 1024**3 - 1)] == [
        "0 bytes",
        "1023 bytes",
        "512 MiB",
        "7.9 GiB",
    ]
    assert [cpu_text(millis) for millis in (500, 1000, 1250)] == ["0.5 CPU", "1 CPU", "1.25 CPU"]
    assert [duration_text(ms) for ms in (500, 4_000, 1_500, 300_000)] == ["500 ms", "4 s", "1.5 s", "5 min"]
    assert names_text(["a"], "hosts") == "a"
    assert names_text(["a", "b", "c"], "hosts") == "a, b and c"
    assert names_text(["a"] * 4, "hosts") == "4 hosts"
