"""Jobs: each slot of a run is to succeed once; what fails is tried again, and the run ends one way or the other. Pure.

Invariants, of each run:
- a slot has one task that is wanted, and another only when that one has ended, and not as it should;
- no more tasks are alive than the job's parallelism allows;
- once it has ended no task of it is begun, and those that went on have been told to stop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from daemon.orchestration import job_runs, restart_plan
from daemon.orchestration.draft import Draft
from daemon.orchestration.kinds import follows_hosts, has_own_volumes, slots_of
from daemon.orchestration.quantities import duration_text
from daemon.orchestration.task_plan import HISTORY_PER_SLOT_MAX, create_task, lose_tasks_of_lost_hosts, stop_task
from daemon.orchestration.task_states import age_key, alive, ended, gone, succeeded, wanted
from proto import objects_pb2 as objects

REPLACED = "another run takes its place"
ONCE_KEPT_MS = 600_000  # a job of `fairway run` is removed so long after its end, if nobody has done so


@dataclass
class Run:
    """One run with its tasks, oldest first."""

    of: objects.JobRun
    tasks: list[objects.Task] = field(default_factory=list)

    def of_slot(self, slot: int) -> list[objects.Task]:
        return [task for task in self.tasks if task.slot == slot]

    def newest(self, slot: int) -> objects.Task | None:
        """The slot's task that is wanted."""
        return next((task for task in reversed(self.tasks) if task.slot == slot and wanted(task)), None)


def plan_job(draft: Draft, stored: objects.Service, nodes: Mapping[str, objects.Node]) -> None:
    """All steps for one job that is not being removed."""
    lose_tasks_of_lost_hosts(draft, draft.tasks_of(stored.meta.id), nodes)
    service = draft.edit(stored)
    if service.spec.HasField("schedule"):
        job_runs.begin_scheduled(service, draft.now_unix_ms)
        if service.next_run_unix_ms:
            draft.wake_at(service.next_run_unix_ms)
    elif job_runs.due(service):
        job_runs.begin_run(service, draft.now_unix_ms)
    by_run: dict[int, list[objects.Task]] = {}
    for task in sorted(draft.tasks_of(service.meta.id), key=age_key):
        by_run.setdefault(task.run, []).append(task)
    for task in by_run.pop(0, ()):  # of another kind of service, before
        stop_task(draft, task, "replaced by a newer version")
    latest = service.run_count
    several = service.spec.schedule.overlap == objects.Schedule.OVERLAP_ALLOW and service.spec.HasField("schedule")
    for going in job_runs.going(service):
        run = Run(going, by_run.get(going.number, []))
        if going.number != latest and not several:
            _end(draft, run, objects.JobRun.OUTCOME_STOPPED, REPLACED)
        else:
            _plan_run(draft, service, run, nodes)
    job_runs.forget_runs(service)
    _forget_tasks(draft, service)
    _remove_when_over(draft, service)


def _plan_run(draft: Draft, service: objects.Service, run: Run, nodes: Mapping[str, objects.Node]) -> None:
    deadline_ms = service.spec.job.deadline_ms
    if deadline_ms:
        ends = run.of.started_unix_ms + deadline_ms
        if ends <= draft.now_unix_ms:
            why = f"it was not done within its deadline of {duration_text(deadline_ms)}"
            _end(draft, run, objects.JobRun.OUTCOME_FAILED, why)
            return
        draft.wake_at(ends)
    done = {task.slot for task in run.tasks if _completed(task)}
    slots = _slots(service, run, nodes, done)
    run.of.wanted, run.of.succeeded = len(slots), len(done)
    if len(done) == len(slots) and (slots or not follows_hosts(service.spec)):
        _end(draft, run, objects.JobRun.OUTCOME_SUCCEEDED, "")
        return
    for task in run.tasks:
        if task.slot not in slots and alive(task):
            stop_task(draft, task, "its host is to have no task of the job any more")
    todo = sorted(set(slots) - done)
    retries = {}
    for slot in todo:
        newest = run.newest(slot)
        if newest is None or not ended(newest):
            continue
        retry = restart_plan.after_failure(newest, draft.now_unix_ms)
        if retry is None:
            why = f"{newest.meta.name}: {restart_plan.ending(newest)}"
            _end(draft, run, objects.JobRun.OUTCOME_FAILED, why)
            return
        retries[slot] = retry
    room = service.spec.job.parallelism or len(slots)
    room -= sum(alive(task) for task in run.tasks if task.slot in slots)
    for slot in todo:
        if draft.full:
            return
        room -= _plan_slot(draft, service, run, slot, retries.get(slot), room, nodes)


def _plan_slot(
    draft: Draft,
    service: objects.Service,
    run: Run,
    slot: int,
    retry: restart_plan.Restart | None,
    room: int,
    nodes: Mapping[str, objects.Node],
) -> int:
    """Begins a task of the slot if it is its turn; how many more are alive now. `retry`: where its last has failed."""
    tasks, newest = run.of_slot(slot), run.newest(slot)
    if newest is not None and not ended(newest):
        node = nodes.get(newest.node_id)
        if node is not None and node.availability == objects.AVAILABILITY_DRAINING:
            stop_task(draft, newest, f"drain of {node.meta.name}")  # the next one follows when it has ended
            return -1
        return 0
    if room <= 0 or any(not ended(task) and not wanted(task) for task in tasks):
        return 0
    restart = retry or restart_plan.Restart(0, tasks[-1].attempt if tasks else 0, "")
    if newest is not None:
        stop_task(draft, newest, "")
    like = _pattern(service, run, slot)
    create_task(
        draft,
        service,
        slot,
        like=like,
        not_before_unix_ms=restart.not_before_unix_ms,
        attempt=restart.attempt,
        message=restart.message,
        run=run.of.number,
    )
    return 1


def _completed(task: objects.Task) -> bool:
    """By itself: one that is told to stop may well end with 0, and has not done what it was to do."""
    return succeeded(task) and not task.desired_message


def _slots(
    service: objects.Service, run: Run, nodes: Mapping[str, objects.Node], done: Collection[int]
) -> Collection[int]:
    """Of a job that follows hosts: those that may have a task now, and those where it is done."""
    if follows_hosts(service.spec):
        return {*slots_of(service, nodes, run.tasks), *done}
    newer = run.of.wanted and run.of.generation != service.generation
    return range(1, (run.of.wanted if newer else service.spec.replicas) + 1)


def _pattern(service: objects.Service, run: Run, slot: int) -> objects.Task | None:
    """A task to be like, where the run is of an older version than the service is now: a run has one version."""
    if run.of.generation == service.generation:
        return None
    candidates = run.of_slot(slot) if has_own_volumes(service.spec) else run.tasks
    return candidates[-1] if candidates else None


def _end(draft: Draft, run: Run, outcome: objects.JobRun.Outcome.ValueType, why: str) -> None:
    for task in run.tasks:
        if alive(task):
            stop_task(draft, task, why or "the job is done")
    job_runs.end_run(run.of, outcome, why, draft.now_unix_ms)


def _forget_tasks(draft: Draft, service: objects.Service) -> None:
    """What has ended is history, but for the last run's, and goes with its run."""
    kept = {run.number for run in service.runs}
    going = {run.number for run in job_runs.going(service)}
    counts: dict[tuple[int, int], int] = {}
    for task in sorted(draft.tasks_of(service.meta.id), key=age_key, reverse=True):
        if task.run not in going and (alive(task) or task.run != service.run_count):
            stop_task(draft, task, "" if ended(task) else "its run has ended")
        if not ended(task):
            continue
        key = (task.run, task.slot)
        counts[key] = counts.get(key, 0) + 1
        if gone(task) and (task.run not in kept or counts[key] > HISTORY_PER_SLOT_MAX):
            draft.delete(task)


def _remove_when_over(draft: Draft, service: objects.Service) -> None:
    if not service.spec.job.once or job_runs.going(service) or not service.runs:
        return
    until = max(run.finished_unix_ms for run in service.runs) + ONCE_KEPT_MS
    if until <= draft.now_unix_ms:
        service.removing = True
    else:
        draft.wake_at(until)
