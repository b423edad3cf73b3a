"""Runs of a job: begun, ended, remembered. Pure; a service's runs are changed in place.

A run is begun in the same transaction that notes what it was begun for (its version, or the moment of the schedule), so
neither a change of the leader nor a second plan begins it twice.
"""

from __future__ import annotations

from proto import objects_pb2 as objects
from proto.cron import Cron, CronError, parse

KEEP_DEFAULT = 3  # runs that have ended
LATE_MS_MAX = 60_000  # a moment that is noticed later than this was missed


def going(service: objects.Service) -> list[objects.JobRun]:
    """Runs that have not ended, oldest first."""
    return [run for run in service.runs if not run.finished_unix_ms]


def begin_run(service: objects.Service, now_unix_ms: int, moment_unix_ms: int = 0) -> objects.JobRun:
    """Notes another run of the service as it is now."""
    service.run_count += 1
    return service.runs.add(
        number=service.run_count,
        moment_unix_ms=moment_unix_ms,
        started_unix_ms=now_unix_ms,
        generation=service.generation,
    )


def end_run(run: objects.JobRun, outcome: objects.JobRun.Outcome.ValueType, why: str, now_unix_ms: int) -> None:
    """Notes how it ended."""
    run.finished_unix_ms, run.outcome, run.message = now_unix_ms, outcome, why


def forget_runs(service: objects.Service) -> None:
    """Leaves those that go on, and the last ones that ended: as many as the job keeps."""
    ended = [run for run in service.runs if run.finished_unix_ms]
    for run in ended[: max(0, len(ended) - (service.spec.job.keep or KEEP_DEFAULT))]:
        service.runs.remove(run)


def last_run_succeeded(service: objects.Service) -> bool:
    return bool(service.runs) and service.runs[-1].outcome == objects.JobRun.OUTCOME_SUCCEEDED


def due(service: objects.Service) -> bool:
    """Whether a job without a schedule has not begun its version yet."""
    return not any(run.generation == service.generation for run in service.runs)


def schedule_of(service: objects.Service) -> Cron | None:
    """None where it cannot be read here: it was accepted where more time zones are known."""
    try:
        return parse(service.spec.schedule.cron, service.spec.schedule.time_zone)
    except CronError:
        return None


def begin_scheduled(service: objects.Service, now_unix_ms: int) -> None:
    """Deals with the moments of the schedule up to now: at most one run is begun, for the last of them."""
    cron = schedule_of(service)
    if cron is None:
        return
    if not service.scheduled_to_unix_ms:  # a new schedule has no past
        service.scheduled_to_unix_ms = now_unix_ms
    elif now_unix_ms < service.next_run_unix_ms:
        return
    moment = cron.last_before(now_unix_ms, service.scheduled_to_unix_ms)
    service.scheduled_to_unix_ms = max(service.scheduled_to_unix_ms, moment or 0)
    service.next_run_unix_ms = cron.next_after(max(now_unix_ms, service.scheduled_to_unix_ms)) or 0
    if moment is None:
        return
    schedule = service.spec.schedule
    if now_unix_ms - moment > LATE_MS_MAX and not schedule.run_missed:
        return
    if schedule.overlap == objects.Schedule.OVERLAP_FORBID and going(service):
        return
    begin_run(service, now_unix_ms, moment)
