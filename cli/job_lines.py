"""What to say of a job's runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli import words
from proto import objects_pb2

JOB_KINDS = (objects_pb2.SERVICE_KIND_JOB, objects_pb2.SERVICE_KIND_GLOBAL_JOB)
_OUTCOMES = {
    objects_pb2.JobRun.OUTCOME_NONE: "running",
    objects_pb2.JobRun.OUTCOME_SUCCEEDED: "succeeded",
    objects_pb2.JobRun.OUTCOME_FAILED: "failed",
    objects_pb2.JobRun.OUTCOME_STOPPED: "stopped",
}


def is_job(service: objects_pb2.Service) -> bool:
    return service.spec.kind in JOB_KINDS


def find_run(service: objects_pb2.Service, number: int = 0) -> objects_pb2.JobRun | None:
    """The run of this number, or the last one of the service as it is now; None: it has not begun."""
    fitting = [
        run for run in service.runs if (run.number == number if number else run.generation == service.generation)
    ]
    return fitting[-1] if fitting else None


def outcome_words(run: objects_pb2.JobRun) -> str:
    """ "running", "succeeded", "failed", "stopped" """
    return _OUTCOMES[run.outcome]


def run_words(run: objects_pb2.JobRun, now_unix_ms: int) -> str:
    """ "run 3 failed after 12s, 2 of 5 completed: work.2: exit code 1" """
    text = f"run {run.number} {outcome_words(run)}"
    if run.finished_unix_ms:
        text += f" after {words.duration(run.finished_unix_ms - run.started_unix_ms)}"
    else:
        text += f" for {words.duration(now_unix_ms - run.started_unix_ms)}"
    text += f", {run.succeeded} of {run.wanted} completed"
    return text + (f": {run.message}" if run.message else "")


def schedule_words(service: objects_pb2.Service) -> str:
    """ "0 3 * * * (Europe/Berlin), next at 2026-03-02T03:00:00.000+0100" """
    schedule = service.spec.schedule
    following = (
        f"next at {words.timestamp(service.next_run_unix_ms)}" if service.next_run_unix_ms else "no next run yet"
    )
    return f"{schedule.cron} ({schedule.time_zone or 'UTC'}), {following}"


def course(
    service: objects_pb2.Service, tasks: Sequence[objects_pb2.Task], number: int = 0
) -> tuple[str, str, tuple[str, ...]]:
    """How far a run is: "done", "going" or "failed", in words, and why. `number`: as for `find_run`."""
    run = find_run(service, number)
    if run is None:
        if service.spec.HasField("schedule") and not number:
            return "done", schedule_words(service), ()
        return "going", "not begun yet", ()
    text = f"{run.succeeded}/{run.wanted} completed"
    if run.outcome == objects_pb2.JobRun.OUTCOME_SUCCEEDED:
        return "done", text, ()
    if run.finished_unix_ms:
        return "failed", f"{text}, {outcome_words(run)}", (run.message,)
    running = sum(task.run == run.number and task.status.state == objects_pb2.TASK_STATE_RUNNING for task in tasks)
    if service.spec.HasField("schedule") and not number:
        return "done", f"{schedule_words(service)}; run {run.number} goes on", ()
    return "going", f"{text}, {running} running", ()
