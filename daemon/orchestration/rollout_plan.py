"""The slots of one service: fill, replace what ended, update, and move away from draining hosts. Pure.

Invariants, for each slot from 1 to replicas (of a global service: for each host that is to have a task):
- one task is wanted; two while the newer one replaces the older (surge), and then the older is told to stop
  only when the newer has settled, that is: is ready and has been for a moment;
- a service that keeps data in a volume is replaced one after the other instead (stop first): its tasks are
  tied to one host, and two of them must not use the volume at once;
- an update takes as many slots with a ready task at a time as the service says (one where it says nothing); a new
  task that fails halts it, or what the service says of failures happens; while it does not go on, what fails of
  the old tasks is replaced by the old version;
- of a blue/green change both versions have all their slots until traffic has gone over and a while has passed;
- a task that shares namespaces goes with the task that it shares them with (sharing_plan.py);
- a drain moves a bounded number of a service's tasks at once, by the same surge; where a task must stop first, as
  far as the service's disruption budget allows (budget_plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from daemon.orchestration import restart_plan
from daemon.orchestration.budget_plan import may_disrupt, stops_first
from daemon.orchestration.draft import Draft
from daemon.orchestration.host_ports import clash, host_ports
from daemon.orchestration.image_lookup import on_its_way
from daemon.orchestration.kinds import has_own_volumes, is_ordered, left_out, slots_of
from daemon.orchestration.move_plan import gave_up, moves
from daemon.orchestration.rollout_begin_plan import begin_rollout
from daemon.orchestration.rollout_course_plan import Counts, Course, advance, course_of, end_split, judge, tracked
from daemon.orchestration.scheduler_devices import has_devices
from daemon.orchestration.scheduler_words import DEVICES_HELD, PORT_TAKEN
from daemon.orchestration.sharing import shares
from daemon.orchestration.sharing_plan import follow_owners, goes_over, kept_for_sharers, may_have_ended_with_owner
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
    succeeded,
    wanted,
)
from daemon.orchestration.traffic import kept_until_unix_ms
from proto import objects_pb2 as objects

DRAINS_AT_ONCE_MAX = 4  # slots of a service that are being moved
IMAGE_WAIT_MS_MAX = 120_000  # from a rollout's start, for a host that fetches the new image


@dataclass
class Slots:
    """A service with its wanted tasks by slot, oldest first."""

    service: objects.Service
    tasks: list[objects.Task]
    wanted: dict[int, list[objects.Task]] = field(default_factory=dict)
    halted: bool = False  # a task of the newest version has failed and is not up again
    failed: list[objects.Task] = field(default_factory=list)  # wanted tasks of the newest version that have failed
    stopping: set[int] = field(default_factory=set)  # slots with a task that has been told to stop and has not ended
    gaps: set[int] = field(default_factory=set)  # slots that wait for that
    course: Course = field(default_factory=lambda: course_of(objects.Service(), 0))
    kept_until_unix_ms: int | None = None  # of a blue/green change that has switched

    @property
    def both_sides(self) -> bool:
        """Traffic has not gone over to the new tasks yet: the old ones must all be there."""
        return self.service.HasField("traffic") and not self.service.traffic.switched

    @property
    def stands_still(self) -> bool:
        """The new version is not about to take over: an old task that ends is followed by another old one."""
        return self.halted or self.course.stopped or self.both_sides

    @property
    def at_limit(self) -> bool:
        """No further slot is to have the new version as yet."""
        return self.stands_still or sum(self.current(tasks[-1]) for tasks in self.wanted.values()) >= self.course.limit

    def current(self, task: objects.Task) -> bool:
        return task.generation == self.service.generation


def plan_service(draft: Draft, service: objects.Service, nodes: Mapping[str, objects.Node]) -> None:
    """All steps for one service that is not being removed."""
    lose_tasks_of_lost_hosts(draft, draft.tasks_of(service.meta.id), nodes)
    follow_owners(draft, service)
    service = begin_rollout(draft, service)
    if tracked(service):
        service = draft.edit(service)
    slots = _observe(draft, service)
    filled = slots_of(service, nodes, slots.tasks)
    slots.course = course_of(service, len(filled))
    if judge(draft, service, slots.course, len(filled), slots.failed):
        return
    slots.course = course_of(service, len(filled))
    if slots.course.decides_failures:
        slots.halted = False
    in_turn = is_ordered(service.spec) and any(slot not in filled for slot in slots.stopping)
    for slot in sorted(slots.wanted, reverse=True):
        if slot not in filled:
            leaving = slots.wanted.pop(slot)
            if in_turn:
                continue  # the one above it is not gone yet
            for task in leaving:
                if not _draining(task, nodes) or may_disrupt(draft, task, nodes):
                    stop_task(draft, task, left_out(service, slot, nodes))
            in_turn = is_ordered(service.spec)
    for slot in sorted(filled):
        if draft.full:
            break
        _plan_slot(draft, slots, slot, nodes)
    _update(draft, slots, len(filled))
    _drain(draft, slots, nodes)
    forget_tasks(draft, draft.tasks_of(service.meta.id), filled)


def _observe(draft: Draft, service: objects.Service) -> Slots:
    slots = Slots(service, sorted(draft.tasks_of(service.meta.id), key=age_key))
    for task in slots.tasks:
        if wanted(task):
            slots.wanted.setdefault(task.slot, []).append(task)
            if slots.current(task) and _failed(task) and not may_have_ended_with_owner(draft, task):
                slots.failed.append(task)
        elif assigned(task) and not ended(task):
            slots.stopping.add(task.slot)
    slots.kept_until_unix_ms = kept_until_unix_ms(service) if service.HasField("traffic") else None
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
        if slots.course.config.order == objects.UPDATE_ORDER_STOP_FIRST and slot in slots.stopping:
            slots.gaps.add(slot)
        else:
            slots.wanted[slot] = [create_task(draft, slots.service, slot, like=_pattern(slots))]
        return
    newest, older = wanted_here[-1], wanted_here[:-1]
    older = _older_that_live(draft, slots, slot, older)
    if gave_up(draft, newest, older):
        slots.wanted[slot] = older
        return
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
    if over and not live and slots.stands_still and not slots.current(over[-1]):
        follower = _follow(draft, slots, slot, over.pop())
        live = [follower]
    for task in over:
        stop_task(draft, task, "")
    return [task for task in live if not ended(task)]


def _follow(draft: Draft, slots: Slots, slot: int, over: objects.Task) -> objects.Task:
    """What comes after a task that has ended: its successor, or itself where its slot is done."""
    if not slots.current(over) and not slots.at_limit:
        # The new version's turn: it owes nothing to the failures of the old one.
        stop_task(draft, over, "replaced by a newer version")
        return create_task(draft, slots.service, slot)
    restart = restart_plan.after_end(over, draft.now_unix_ms)
    if restart is None or may_have_ended_with_owner(draft, over):
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
    if slots.both_sides and slots.current(newest):
        return [*older, newest]
    if settled(newest, draft.now_unix_ms):
        stay = _kept(draft, slots, older, nodes) or kept_for_sharers(draft, older, newest, nodes)
        for task in older:
            if task not in stay:
                stop_task(draft, task, _why_replaced(task, newest, nodes))
        return [*stay, newest]
    at = settled_at_unix_ms(newest)
    if at is not None:
        draft.wake_at(at)
    for task in older:
        needed = _draining(task, nodes) or moves(newest) or goes_over(draft, task)
        if task.generation == newest.generation and serving(task) and not needed:
            # Those on hosts that drain go with it: the next one would be made in their place, and be no more needed.
            needless = [newest, *(other for other in older if _draining(other, nodes))]
            for other in needless:
                stop_task(draft, other, "not needed: the task that it was to replace may stay")
            return [other for other in older if other not in needless]
    stay = []
    for task in older:
        # What serves nobody may hold what the new task needs; a volume or a port must be let go of first.
        holds = _stops_first(slots, task) or _holds_port(task, newest, nodes)
        holds = holds or _holds_devices(draft, task, newest, nodes)
        in_the_way = not assigned(newest) and (not serving(task) or holds)
        if in_the_way or not assigned(task):
            stop_task(draft, task, _why_replaced(task, newest, nodes))
        else:
            stay.append(task)
    return [*stay, newest]


def _kept(
    draft: Draft, slots: Slots, older: Sequence[objects.Task], nodes: Mapping[str, objects.Node]
) -> list[objects.Task]:
    """The older tasks of a blue/green change that has switched, which stay for a while."""
    until = slots.kept_until_unix_ms
    if until is None or until <= draft.now_unix_ms:
        return []
    draft.wake_at(until)
    split = slots.service.traffic.generation
    return [task for task in older if task.generation < split and serving(task) and not _draining(task, nodes)]


def _pattern(slots: Slots) -> objects.Task | None:
    """What a slot that had no task begins with: the old version, while the new one is not to go further."""
    spec = slots.service.spec
    if has_own_volumes(spec) or not slots.at_limit:
        return None
    old = [tasks[-1] for tasks in slots.wanted.values() if not slots.current(tasks[-1])]
    return old[0] if old else None


def _update(draft: Draft, slots: Slots, slot_count: int) -> None:
    """Begins to replace tasks of older versions, within the bounds named above."""
    outdated = []
    unsettled = len(slots.gaps)
    passed_over = set(slots.service.rollout.failed_slots) if slots.course.decides_failures else set()
    for slot, tasks in sorted(slots.wanted.items()):
        newest = tasks[-1]
        if slots.current(newest):
            at = settled_at_unix_ms(newest)
            if not settled(newest, draft.now_unix_ms) and not _done(newest) and slot not in passed_over:
                unsettled += 1
                if at is not None:
                    draft.wake_at(at)
        else:
            outdated.append(slot)
    fetching = {slot for slot in outdated if _image_comes(draft, slots, slots.wanted[slot][-1])}
    if fetching and len(fetching) == len(outdated):
        return
    counts = _counts(draft, slots, slot_count, len(outdated), unsettled, passed_over)
    if not advance(draft, slots.service, slots.course, counts) or slots.halted:
        return
    room = course_of(slots.service, slot_count).limit - counts.fresh - len(slots.gaps)
    for slot in sorted(outdated, key=lambda slot: (serving(slots.wanted[slot][-1]), slot)):
        if draft.full or room <= 0:
            return
        if slot in fetching:
            continue
        old = slots.wanted[slot][-1]
        if serving(old) and unsettled >= slots.course.at_once:
            return
        unsettled += 1
        room -= 1
        _replace(draft, slots, slot, old, None, "replaced by a newer version")


def _counts(
    draft: Draft, slots: Slots, slot_count: int, outdated: int, unsettled: int, passed_over: Set[int]
) -> Counts:
    back = bool(slots.service.rollout.back_to)  # to tasks that have been relied on before
    newest = [tasks[-1] for tasks in slots.wanted.values()]
    ready = sum(
        slots.current(task) and (settled(task, draft.now_unix_ms) or _done(task) or (back and serving(task)))
        for task in newest
    )
    split = slots.service.traffic.generation if slots.service.HasField("traffic") else 0
    older = sum(task.generation < split for tasks in slots.wanted.values() for task in tasks[:-1])
    end_split(draft, slots.service, older)
    return Counts(
        slots=slot_count,
        fresh=len(newest) - outdated,
        outdated=outdated,
        unsettled=unsettled,
        replacing=sum(
            len(tasks) > 1 and slots.current(tasks[-1]) and slot not in passed_over and not slots.kept_until_unix_ms
            for slot, tasks in slots.wanted.items()
        ),
        all_ready=ready == slot_count,
    )


def _drain(draft: Draft, slots: Slots, nodes: Mapping[str, objects.Node]) -> None:
    """Begins to move tasks off draining hosts. Tasks that are tied to the host by a volume are left to
    daemon/orchestration/drain_plan.py, which stops them last."""
    if named_volumes(slots.service.spec) or shares(slots.service.spec):
        return
    split = slots.service.traffic.generation  # the older side of a blue/green change is not on the move
    moving = sum(sum(alive(task) and task.generation >= split for task in tasks) > 1 for tasks in slots.wanted.values())
    for slot, tasks in sorted(slots.wanted.items()):
        if draft.full or moving >= DRAINS_AT_ONCE_MAX:
            return
        newest = tasks[-1]
        if not alive(newest) or not _draining(newest, nodes) or named_volumes(newest.spec):
            continue
        if stops_first(newest.spec) and not may_disrupt(draft, newest, nodes):
            continue
        moving += 1
        like = None if slots.current(newest) else newest
        _replace(draft, slots, slot, newest, like, f"drain of {nodes[newest.node_id].meta.name}")


def _replace(draft: Draft, slots: Slots, slot: int, old: objects.Task, like: objects.Task | None, why: str) -> None:
    """Makes the task that is to take over from `old`, and stops `old` at once where it may go first."""
    stop_first = slots.course.config.order == objects.UPDATE_ORDER_STOP_FIRST
    if stop_first and like is None and not slots.current(old) and assigned(old) and not ended(old):
        for task in slots.wanted.pop(slot):  # the next one is made when these have ended
            stop_task(draft, task, why)
        slots.gaps.add(slot)
        return
    fresh = create_task(draft, slots.service, slot, like=like)
    piled_up = len(slots.wanted[slot]) > 1 and not serving(old)  # an older one serves, or is to
    if _stops_first(slots, old) or not assigned(old) or ended(old) or piled_up:
        stop_task(draft, old, why)
        slots.wanted[slot] = [*slots.wanted[slot][:-1], fresh]
    else:
        slots.wanted[slot] = [*slots.wanted[slot], fresh]


def _stops_first(slots: Slots, old: objects.Task) -> bool:
    """The old task keeps data, or is to be the only one of its slot, and must end before the new one starts. Not while
    the new image is unknown: then the new one could not start anyway."""
    alone = stops_first(old.spec) or slots.service.spec.HasField("stateful")
    return alone and bool(slots.service.image_digest)


def _image_comes(draft: Draft, slots: Slots, old: objects.Task) -> bool:
    """The old task is to stop before the new one starts, and its host is still fetching the new one's image: the old
    one serves meanwhile. Not for ever, since the host may lack the room; and not on the way back, which is urgent."""
    service = slots.service
    stop_first = slots.course.config.order == objects.UPDATE_ORDER_STOP_FIRST or _stops_first(slots, old)
    if not stop_first or not serving(old) or not tracked(service) or service.rollout.back_to:
        return False
    until_unix_ms = service.rollout.started_unix_ms + IMAGE_WAIT_MS_MAX
    if draft.now_unix_ms >= until_unix_ms or not on_its_way(draft.store, service, old.node_id):
        return False
    draft.wake_at(until_unix_ms)
    return True


def _holds_port(old: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    """No host has the port free that both publish in mode host, and the old one's would take the new task."""
    if PORT_TAKEN not in newest.status.message or _draining(old, nodes):
        return False
    return any(clash(one, other) for one in host_ports(old.spec) for other in host_ports(newest.spec))


def _holds_devices(draft: Draft, old: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    """No host has the devices left that the new task asks for, and the old one's would have them without it."""
    node = nodes.get(old.node_id)
    if not old.devices or node is None or DEVICES_HELD not in newest.status.message or _draining(old, nodes):
        return False
    others = (task for task in draft.store.table(objects.Task).by("node", old.node_id) if task.meta.id != old.meta.id)
    return has_devices(node, others, newest.spec.resources.devices)


def _why_replaced(task: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> str:
    if task.generation != newest.generation:
        return "replaced by a newer version"
    if _draining(task, nodes):
        return f"drain of {nodes[task.node_id].meta.name}"
    return newest.move.why or "replaced"


def _draining(task: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    node = nodes.get(task.node_id)
    return node is not None and node.availability == objects.AVAILABILITY_DRAINING


def _failed(task: objects.Task) -> bool:
    """It did not run as it was to, by itself: not with its host."""
    if ended(task):
        return task.status.state != objects.TASK_STATE_LOST and not _done(task)
    return task.status.health == objects.HEALTH_UNHEALTHY


def _done(task: objects.Task) -> bool:
    """It has ended and its policy asks for no further run: for a rollout, as good as settled if it succeeded."""
    return succeeded(task) and task.spec.restart.condition != objects.RestartPolicy.CONDITION_ANY
