"""The slots of one service: fill, replace what ended, update, and move away from draining hosts. Pure.

Invariants, for each slot from 1 to replicas (of a global service: for each host that is to have a task):
- one task is wanted; two while the newer one replaces the older (surge), and then the older is told to stop
  only when the newer has settled, that is: is ready and has been for a moment;
- a service that keeps data in a volume is replaced one after the other instead (stop first): its tasks are
  tied to one host, and two of them must not use the volume at once;
- an update takes one slot with a ready task at a time, and only while every new task has settled; a new
  task that fails halts it, and what fails of the old tasks meanwhile is replaced by the old version;
- a drain moves a bounded number of a service's tasks at once, by the same surge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daemon.orchestration import restart_plan
from daemon.orchestration.draft import Draft
from daemon.orchestration.host_ports import clash, host_ports
from daemon.orchestration.kinds import left_out, slots_of
from daemon.orchestration.scheduler_words import PORT_TAKEN
from daemon.orchestration.task_plan import create_task, forget_tasks, lose_tasks_of_lost_hosts, stop_task
from daemon.orchestration.task_states import (
    age_key,
    alive,
    assigned,
    ended,
    named_volumes,
    serving,
    settled,
    settled_at_unix_ms,
    wanted,
)
from proto import objects_pb2 as objects

UPDATES_AT_ONCE_MAX = 1  # slots of a service whose ready task is being replaced by an update
DRAINS_AT_ONCE_MAX = 4  # slots of a service that are being moved


@dataclass
class Slots:
    """A service with its wanted tasks by slot, oldest first."""

    service: objects.Service
    tasks: list[objects.Task]
    wanted: dict[int, list[objects.Task]] = field(default_factory=dict)
    halted: bool = False  # a task of the newest version has failed and is not up again

    def current(self, task: objects.Task) -> bool:
        return task.generation == self.service.generation


def plan_service(draft: Draft, service: objects.Service, nodes: Mapping[str, objects.Node]) -> None:
    """All steps for one service that is not being removed."""
    lose_tasks_of_lost_hosts(draft, draft.tasks_of(service.meta.id), nodes)
    slots = _observe(draft, service)
    filled = slots_of(service, nodes, slots.tasks)
    for slot in sorted(slots.wanted, reverse=True):
        if slot not in filled:
            for task in slots.wanted.pop(slot):
                stop_task(draft, task, left_out(service, slot, nodes))
    for slot in sorted(filled):
        if draft.full:
            break
        _plan_slot(draft, slots, slot, nodes)
    _update(draft, slots)
    _drain(draft, slots, nodes)
    forget_tasks(draft, draft.tasks_of(service.meta.id), filled)


def _observe(draft: Draft, service: objects.Service) -> Slots:
    slots = Slots(service, sorted(draft.tasks_of(service.meta.id), key=age_key))
    for task in slots.tasks:
        if wanted(task):
            slots.wanted.setdefault(task.slot, []).append(task)
    for tasks in slots.wanted.values():
        # By generation first: a retry of an old version may be younger than the new version's task.
        tasks.sort(key=lambda task: (task.generation, *age_key(task)))
        newest = tasks[-1]
        failed = newest.attempt > 0 or newest.status.state in (
            objects.TASK_STATE_FAILED,
            objects.TASK_STATE_EXITED,
        )
        if slots.current(newest) and failed and not serving(newest) and not _done(newest):
            slots.halted = True
    return slots


def _plan_slot(draft: Draft, slots: Slots, slot: int, nodes: Mapping[str, objects.Node]) -> None:
    """Brings one slot to one wanted task that lives, or to two while a surge goes on."""
    wanted_here = slots.wanted.get(slot, [])
    if not wanted_here:
        slots.wanted[slot] = [create_task(draft, slots.service, slot)]
        return
    newest, older = wanted_here[-1], wanted_here[:-1]
    older = _older_that_live(draft, slots, slot, older)
    if ended(newest):
        newest = _follow(draft, slots, slot, newest)
    elif older:
        slots.wanted[slot] = _finish_surge(draft, slots, newest, older, nodes)
        return
    slots.wanted[slot] = [*older, newest]


def _older_that_live(draft: Draft, slots: Slots, slot: int, older: Sequence[objects.Task]) -> list[objects.Task]:
    """The tasks that the newest is to replace, without those that have ended. While the update is halted the
    last that ended of the old version is followed by another of it: the new one cannot take over."""
    live = [task for task in older if not ended(task)]
    over = [task for task in older if ended(task)]
    if over and not live and slots.halted and not slots.current(over[-1]):
        follower = _follow(draft, slots, slot, over.pop())
        live = [follower]
    for task in over:
        stop_task(draft, task, "")
    return [task for task in live if not ended(task)]


def _follow(draft: Draft, slots: Slots, slot: int, over: objects.Task) -> objects.Task:
    """What comes after a task that has ended: its successor, or itself where its slot is done."""
    if not slots.current(over) and not slots.halted:
        # The new version's turn: it owes nothing to the failures of the old one.
        stop_task(draft, over, "replaced by a newer version")
        return create_task(draft, slots.service, slot)
    restart = restart_plan.after_end(over, draft.now_unix_ms)
    if restart is None:
        return over
    stop_task(draft, over, "")
    return create_task(
        draft,
        slots.service,
        slot,
        like=None if slots.current(over) else over,
        not_before_unix_ms=restart.not_before_unix_ms,
        attempt=restart.attempt,
        message=restart.message,
    )


def _finish_surge(
    draft: Draft,
    slots: Slots,
    newest: objects.Task,
    older: Sequence[objects.Task],
    nodes: Mapping[str, objects.Node],
) -> list[objects.Task]:
    """Stops what `newest` has replaced, or `newest` where it is not needed any more; the tasks that stay."""
    if settled(newest, draft.now_unix_ms):
        for task in older:
            stop_task(draft, task, _why_replaced(task, newest, nodes))
        return [newest]
    at = settled_at_unix_ms(newest)
    if at is not None:
        draft.wake_at(at)
    for task in older:
        if task.generation == newest.generation and serving(task) and not _draining(task, nodes):
            stop_task(draft, newest, "not needed: the task that it was to replace may stay")
            return list(older)
    stay = []
    for task in older:
        # What serves nobody may hold what the new task needs; a volume or a port must be let go of first.
        holds = _stops_first(slots, task) or _holds_port(task, newest, nodes)
        in_the_way = not assigned(newest) and (not serving(task) or holds)
        if in_the_way or not assigned(task):
            stop_task(draft, task, _why_replaced(task, newest, nodes))
        else:
            stay.append(task)
    return [*stay, newest]


def _update(draft: Draft, slots: Slots) -> None:
    """Begins to replace tasks of older versions, within the bounds named above."""
    outdated = []
    unsettled = 0
    for slot, tasks in sorted(slots.wanted.items()):
        newest = tasks[-1]
        if slots.current(newest):
            at = settled_at_unix_ms(newest)
            if not settled(newest, draft.now_unix_ms) and not _done(newest):
                unsettled += 1
                if at is not None:
                    draft.wake_at(at)
        else:
            outdated.append(slot)
    if slots.halted:
        return
    for slot in sorted(outdated, key=lambda slot: (serving(slots.wanted[slot][-1]), slot)):
        if draft.full:
            return
        old = slots.wanted[slot][-1]
        if serving(old) and unsettled >= UPDATES_AT_ONCE_MAX:
            return
        unsettled += 1
        _replace(draft, slots, slot, old, None, "replaced by a newer version")


def _drain(draft: Draft, slots: Slots, nodes: Mapping[str, objects.Node]) -> None:
    """Begins to move tasks off draining hosts. Tasks that are tied to the host by a volume are left to
    daemon/orchestration/drain_plan.py, which stops them last."""
    if named_volumes(slots.service.spec):
        return
    moving = sum(1 for tasks in slots.wanted.values() if len([task for task in tasks if alive(task)]) > 1)
    for slot, tasks in sorted(slots.wanted.items()):
        if draft.full or moving >= DRAINS_AT_ONCE_MAX:
            return
        newest = tasks[-1]
        if not alive(newest) or not _draining(newest, nodes) or named_volumes(newest.spec):
            continue
        moving += 1
        like = None if slots.current(newest) else newest
        _replace(draft, slots, slot, newest, like, f"drain of {nodes[newest.node_id].meta.name}")


def _replace(draft: Draft, slots: Slots, slot: int, old: objects.Task, like: objects.Task | None, why: str) -> None:
    """Makes the task that is to take over from `old`, and stops `old` at once where it may go first."""
    fresh = create_task(draft, slots.service, slot, like=like)
    piled_up = len(slots.wanted[slot]) > 1 and not serving(old)  # an older one serves, or is to
    if _stops_first(slots, old) or not assigned(old) or ended(old) or piled_up:
        stop_task(draft, old, why)
        slots.wanted[slot] = [*slots.wanted[slot][:-1], fresh]
    else:
        slots.wanted[slot] = [*slots.wanted[slot], fresh]


def _stops_first(slots: Slots, old: objects.Task) -> bool:
    """The old task keeps data and must end before the new one starts. Not while the new image is unknown:
    then the new one could not start anyway."""
    return bool(named_volumes(old.spec)) and bool(slots.service.image_digest)


def _holds_port(old: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    """No host has the port free that both publish in mode host, and the old one's would take the new task."""
    if PORT_TAKEN not in newest.status.message or _draining(old, nodes):
        return False
    return any(clash(one, other) for one in host_ports(old.spec) for other in host_ports(newest.spec))


def _why_replaced(task: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> str:
    if task.generation != newest.generation:
        return "replaced by a newer version"
    if _draining(task, nodes):
        return f"drain of {nodes[task.node_id].meta.name}"
    return "replaced"


def _draining(task: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    node = nodes.get(task.node_id)
    return node is not None and node.availability == objects.AVAILABILITY_DRAINING


def _done(task: objects.Task) -> bool:
    """It has ended and its policy asks for no further run: for a rollout, as good as settled if it succeeded."""
    if not ended(task):
        return False
    return (
        task.status.state == objects.TASK_STATE_EXITED
        and task.status.exit_code == 0
        and (task.spec.restart.condition != objects.RestartPolicy.CONDITION_ANY)
    )
