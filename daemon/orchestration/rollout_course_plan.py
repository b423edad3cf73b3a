"""The course of a rollout: how many tasks at once, how far, when it goes on, fails, switches and is done. Pure.

All that it remembers is in `Service.rollout`, so whichever host leads goes on where the last one stopped. A failure
of a new task counts from the first pass of the rollout until it is done; `settled_unix_ms` is the time from which
delays, steps and the monitoring at the end are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from daemon.deploying.revisions_plan import find_revision, plan_revert
from daemon.errors import Refused
from daemon.orchestration import restart_plan
from daemon.orchestration.draft import Draft
from daemon.orchestration.traffic import kept_until_unix_ms
from proto import objects_pb2 as objects

Rollout = objects.Rollout
MILLION = 1_000_000
_UNDER_WAY = (Rollout.STATE_GOING, Rollout.STATE_WAITING)
_ONE_BY_ONE = objects.UpdateConfig(parallelism=1)


@dataclass(frozen=True)
class Course:
    """What the rollout of a service with so many slots allows."""

    config: objects.UpdateConfig
    at_once: int  # slots whose ready task is being replaced
    limit: int  # slots that may have a task of the newest version as yet
    stopped: bool  # nothing is begun

    @property
    def decides_failures(self) -> bool:
        """A new task that fails is counted, and does not merely halt the rollout until it is up again."""
        return self.config.failure_action != objects.FAILURE_ACTION_UNSPECIFIED


@dataclass(frozen=True)
class Counts:
    """How far a rollout is, in slots."""

    slots: int
    fresh: int  # whose newest task is of the newest version
    outdated: int
    unsettled: int  # fresh ones that are on their way
    replacing: int  # fresh ones that have an older task still
    all_ready: bool  # every slot is fresh and may be relied on


def tracked(service: objects.Service) -> bool:
    """Its tasks are being replaced, or are to be."""
    rollout = service.rollout
    return rollout.generation == service.generation and rollout.state not in (
        Rollout.STATE_UNSPECIFIED,
        Rollout.STATE_DONE,
    )


def course_of(service: objects.Service, slot_count: int) -> Course:
    """As the service's settings and the state of its rollout have it."""
    rollout = service.rollout
    if rollout.generation == service.generation and rollout.back_to:
        config = rollout.config if rollout.HasField("config") else _ONE_BY_ONE
    else:
        config = service.spec.update if service.spec.HasField("update") else _ONE_BY_ONE
    at_once = config.parallelism or max(slot_count, 1)
    if service.HasField("traffic"):
        at_once = max(slot_count, 1)  # the new side is not relied on before it is complete
    stopped = tracked(service) and rollout.state not in _UNDER_WAY
    return Course(config, at_once, _limit(service, slot_count), stopped)


def _limit(service: objects.Service, slot_count: int) -> int:
    steps, step = service.spec.rollout.steps, service.rollout.step
    if not tracked(service) or service.rollout.back_to or step >= len(steps):
        return slot_count
    tasks = steps[step].tasks or -(-steps[step].share_millionths * slot_count // MILLION)
    return min(tasks, slot_count)


def judge(draft: Draft, service: objects.Service, course: Course, slots: int, failed: Iterable[objects.Task]) -> bool:
    """Notes new tasks that failed and does what is to be done about it. True where the service is on its way back
    now: what was observed of it is not true any more."""
    if not tracked(service) or course.stopped or not course.decides_failures:
        return False
    found = {task.slot: task for task in failed}
    news = sorted(found.keys() - set(service.rollout.failed_slots))
    if not news:
        return False
    edited = draft.edit(service)
    edited.rollout.failed_slots.extend(news)
    count = len(edited.rollout.failed_slots)
    action = course.config.failure_action
    if action == objects.FAILURE_ACTION_CONTINUE or count * MILLION <= course.config.max_failure_millionths * slots:
        return False
    words = f"{count} of {slots} new tasks failed: {restart_plan.ending(found[news[0]])}"
    if action == objects.FAILURE_ACTION_ROLLBACK and not edited.rollout.back_to:
        try:
            revision = find_revision(edited)
            _, changes = plan_revert(draft.store, draft.leases, edited, revision, draft.now_unix_ms, words)
        except Refused as refused:
            words += f"; {refused.message}"
        else:
            changes.into(draft)
            draft.wake_at(draft.now_unix_ms)
            return True
    edited.rollout.state = Rollout.STATE_FAILED
    edited.rollout.message = words
    return False


def advance(draft: Draft, service: objects.Service, course: Course, counts: Counts) -> bool:
    """Takes the rollout's state further; whether more tasks may be replaced now."""
    if not tracked(service):
        return not course.stopped
    rollout, now = service.rollout, draft.now_unix_ms
    settled_unix_ms = 0 if counts.unsettled else rollout.settled_unix_ms or now
    if settled_unix_ms != rollout.settled_unix_ms:
        rollout = draft.edit(service).rollout
        rollout.settled_unix_ms = settled_unix_ms
    if course.stopped:
        return False
    if counts.unsettled:
        return course.config.delay_ms == 0
    if counts.all_ready and service.HasField("traffic") and not service.traffic.switched:
        traffic = draft.edit(service).traffic
        traffic.switched, traffic.switched_unix_ms = True, now
        return False
    if counts.outdated:
        if not _next_step(draft, service, counts):
            return False
        if counts.fresh and not _after(draft, service, course.config.delay_ms):
            return False
        draft.edit(service).rollout.settled_unix_ms = 0  # at least one is begun now
        return True
    if not counts.replacing and _after(draft, service, course.config.monitor_ms):
        _done(draft, service)
    return False


def end_split(draft: Draft, service: objects.Service, older: int) -> None:
    """Traffic is for every ready task again when the side that is out of use is gone."""
    until = kept_until_unix_ms(service) if service.HasField("traffic") else None
    if until is not None and not older:
        draft.edit(service).ClearField("traffic")


def _next_step(draft: Draft, service: objects.Service, counts: Counts) -> bool:
    """Whether a canary's step, if it is at one, lets more tasks be replaced."""
    rollout, steps = service.rollout, service.spec.rollout.steps
    while counts.fresh >= _limit(service, counts.slots):
        step = steps[rollout.step]
        if not step.wait_ms:
            if rollout.state != Rollout.STATE_WAITING:
                service = draft.edit(service)
                name = f"{service.app}/{service.meta.name}"
                service.rollout.state = Rollout.STATE_WAITING
                service.rollout.message = (
                    f"step {rollout.step + 1} of {len(steps)}: {counts.fresh} of {counts.slots} tasks are new; "
                    f"`fairway service promote {name}` goes on, `fairway service abort {name}` goes back"
                )
            return False
        if not _after(draft, service, step.wait_ms):
            return False
        if service.spec.rollout.HasField("check") and rollout.check_state != objects.CHECK_STATE_GOOD:
            return False  # until its new tasks say that they are well; rollout_check_plan.py
        service = draft.edit(service)
        rollout = service.rollout
        rollout.step += 1
    if rollout.state == Rollout.STATE_WAITING:  # the share of more slots is more
        draft.edit(service).rollout.state = Rollout.STATE_GOING
    return True


def _after(draft: Draft, service: objects.Service, wait_ms: int) -> bool:
    due_unix_ms = service.rollout.settled_unix_ms + wait_ms
    if draft.now_unix_ms < due_unix_ms:
        draft.wake_at(due_unix_ms)
        return False
    return True


def _done(draft: Draft, service: objects.Service) -> None:
    rollout = draft.edit(service).rollout
    rollout.state, rollout.ended_unix_ms = Rollout.STATE_DONE, draft.now_unix_ms
    if rollout.failed_slots:
        rollout.message = f"{len(rollout.failed_slots)} of its tasks failed on the way"
