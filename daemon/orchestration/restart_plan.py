"""Whether, when and as which attempt a task that has ended is followed by another. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.orchestration.quantities import duration_text
from daemon.orchestration.task_states import succeeded
from proto import objects_pb2 as objects

DELAY_MS_DEFAULT = 500  # the first wait, where the policy says none
DELAY_MS_MAX = 300_000
WINDOW_MS_DEFAULT = 10_000


@dataclass(frozen=True)
class Restart:
    """The next run of a slot. `message` says why it waits; empty where it does not."""

    not_before_unix_ms: int
    attempt: int
    message: str


def after_end(task: objects.Task, now_unix_ms: int) -> Restart | None:
    """What follows an ended task by its own restart policy; None: nothing, its slot is done.

    A lost task is followed at once: its host failed, not the task. A run longer than the policy's window
    clears the count of failures. `attempt` counts failures in a row, so the wait is delay x 2^(attempt - 1).
    """
    policy = task.spec.restart
    if policy.condition == objects.RestartPolicy.CONDITION_NONE:
        return None
    if task.status.state == objects.TASK_STATE_LOST:
        return Restart(0, task.attempt, "")
    if policy.condition == objects.RestartPolicy.CONDITION_ON_FAILURE and succeeded(task):
        return None
    attempt = 1 if _ran_for_ms(task) >= (policy.window_ms or WINDOW_MS_DEFAULT) else task.attempt + 1
    return _again(task, attempt, now_unix_ms)


def _again(task: objects.Task, attempt: int, now_unix_ms: int) -> Restart | None:
    policy = task.spec.restart
    if policy.max_attempts and attempt > policy.max_attempts:
        return None
    delay_ms = backoff_ms(policy.delay_ms or DELAY_MS_DEFAULT, attempt)
    return Restart(
        now_unix_ms + delay_ms,
        attempt,
        f"waits {duration_text(delay_ms)} before the next try, number {attempt} in a row: {ending(task)}",
    )


def after_failure(task: objects.Task, now_unix_ms: int) -> Restart | None:
    """What follows a task of a job that has ended without success; None: nothing, its tries are used up.

    However long it ran, every failure counts; a lost task is followed at once and does not."""
    policy = task.spec.restart
    if policy.condition == objects.RestartPolicy.CONDITION_NONE:
        return None
    if task.status.state == objects.TASK_STATE_LOST:
        return Restart(0, task.attempt, "")
    return _again(task, task.attempt + 1, now_unix_ms)


def backoff_ms(first_ms: int, attempt: int) -> int:
    """`first_ms` for the first attempt, doubled for each further one, at most five minutes."""
    doublings = min(max(attempt - 1, 0), 32)
    return min(first_ms << doublings, DELAY_MS_MAX) if first_ms < DELAY_MS_MAX else first_ms


def ending(task: objects.Task) -> str:
    """How it ended, in words."""
    status = task.status
    if status.out_of_memory:
        return "it ran out of memory"
    if status.message:
        return status.message
    if status.state == objects.TASK_STATE_EXITED or status.exit_code:
        return f"it ended with exit code {status.exit_code}"
    return "it failed"


def _ran_for_ms(task: objects.Task) -> int:
    if not task.status.started_unix_ms:
        return 0
    return max(0, task.status.finished_unix_ms - task.status.started_unix_ms)
