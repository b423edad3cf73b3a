"""All pending tasks in their turn: placed, or with room being made for them, or with the reason why neither. Pure.

Units (precedence.py) are tried one after the other, each as a whole: a group holds nothing while one of its tasks fits
nowhere, so two groups never wait for each other. Its tasks that wait for their next try do not hold up the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from daemon.errors import Refused
from daemon.host_conditions import barring
from daemon.orchestration.budget_plan import bounded, standing_of
from daemon.orchestration.draft import Draft
from daemon.orchestration.move_plan import moves
from daemon.orchestration.placement_plan import assign, candidate_of, held_back
from daemon.orchestration.precedence import GROUP_TASKS_MAX, Precedences, Unit
from daemon.orchestration.preemption_plan import Preemption, Room, Spare
from daemon.orchestration.quantities import names_text
from daemon.orchestration.quota_plan import Quotas
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from daemon.orchestration.sharing import sharing_services
from daemon.orchestration.task_plan import stop_task
from daemon.orchestration.task_states import assigned, ended, serving, wanted
from proto import objects_pb2 as objects

STARTING_A_HOST_MAX = 50  # however many hosts are lost at once, those that are left are not overrun
STARTING_MS_MAX = 60_000  # what takes longer holds up nobody else
TURN_MS = 1_000
VICTIMS_PER_PASS_MAX = 64  # beyond, no further unit preempts in this plan
UNITS_AHEAD_MAX = 200  # that are counted to answer a question


def place_pending(draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
    """Assigns what can be assigned; what cannot carries the reason in `status.message`."""
    turns = Turns(draft, nodes)
    starts_max = STARTING_A_HOST_MAX * sum(map(_takes_tasks, nodes.values()))
    starting = sum(_starting(task, draft.now_unix_ms) for task in turns.tasks) if turns.units else 0
    for unit in turns.units:
        if draft.full:
            draft.wake_at(draft.now_unix_ms)
            return
        if starting >= starts_max > 0:
            draft.wake_at(draft.now_unix_ms + TURN_MS)
            words = f"waits for its turn: {STARTING_A_HOST_MAX} tasks a host are being started, and no more at once"
            Attempt(reasons=_reasons(unit, unit.tasks[0], words)).into(draft, turns.precedences)
            continue
        found = turns.attempt(unit)
        found.into(draft, turns.precedences)
        starting += len(found.placed)


@dataclass
class Attempt:
    """What became of a unit: it is placed where there are neither `rooms` nor `reasons` (by task id); otherwise nothing
    of it is."""

    placed: list[tuple[Candidate, objects.Node, objects.Lease, str]] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    devices: dict[str, Sequence[objects.AllottedDevice]] = field(default_factory=dict)  # by task id

    def into(self, draft: Draft, precedences: Precedences) -> None:
        """Makes it part of the plan."""
        for room in self.rooms:
            for victim in room.victims:
                _preempt(draft, victim, room.task, precedences)
        if not self.rooms and not self.reasons:
            for candidate, node, lease, address in self.placed:
                assign(draft, candidate, node, lease, address, self.devices[candidate.task.meta.id])
        for identifier, reason in self.reasons.items():
            task = draft.get(objects.Task, identifier)
            if task is not None and reason != task.status.message:
                draft.edit(task).status.message = reason


class Turns:
    """The units of one plan, and what they have taken so far."""

    def __init__(self, draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
        self._draft = draft
        self._nodes = nodes
        self.tasks = tasks = list(draft.tasks())
        self.precedences = Precedences(self._service, draft.store.table(objects.Service))
        pending = [task for task in tasks if _due(draft, task) and self._service(task.service_id) is not None]
        self.units = self.precedences.units(pending)
        self.scheduler = Scheduler(nodes.values() if pending else (), tasks if pending else (), draft.now_unix_ms)
        self._preemption = Preemption(self.scheduler, tasks, self.precedences, self._spare)
        self._quotas = Quotas(draft.store.table(objects.Tenant), tasks if pending else ())
        self._held: dict[str, str | None] = {}
        self._ahead = 0  # units that `take_ahead` has counted
        self._nowhere: set[tuple[object, ...]] = set()  # what no room can be made for in this plan

    def attempt(self, unit: Unit) -> Attempt:
        """Counts what it places or promises; nothing where it does not fit as a whole."""
        before = self._mark()
        may_preempt = self._preemption.victim_count < VICTIMS_PER_PASS_MAX
        found = Attempt()
        failed, reason = unit.tasks[0], _too_large(unit)
        if not reason:
            for task in unit.tasks:
                failed, reason = task, self._step(task, found, len(unit.tasks) == 1, may_preempt)
                if reason:
                    break
        if not reason and not found.rooms:
            failed, reason = self._lease(found)
        if reason:
            self._undo(before)
            if not may_preempt:
                self._draft.wake_at(self._draft.now_unix_ms)
            return Attempt(reasons=_reasons(unit, failed, reason))
        for room in found.rooms:
            failed, reason = room.task, _waits(room)
            found.reasons.update(_reasons(unit, failed, reason))
        for room in found.rooms:
            found.reasons[room.task.meta.id] = _waits(room)
        return found

    def take_ahead(self, priority: int) -> None:
        """Counts what the units of a higher priority take, as far as there are not too many of them."""
        while self._ahead < min(len(self.units), UNITS_AHEAD_MAX):
            unit = self.units[self._ahead]
            if unit.precedence.priority <= priority:
                return
            self.attempt(unit)
            self._ahead += 1

    def unit_of(self, task: objects.Task) -> Unit | None:
        """None where it is not its turn."""
        return next((unit for unit in self.units if any(each.meta.id == task.meta.id for each in unit.tasks)), None)

    def look(self, unit: Unit) -> Attempt:
        """What `attempt` would find; counts nothing."""
        before = self._mark()
        found = self.attempt(unit)
        self._undo(before)
        return found

    def _mark(self) -> tuple[int, int, int]:
        return self.scheduler.placed_count, self._preemption.victim_count, self._quotas.taken_count

    def _undo(self, before: tuple[int, int, int]) -> None:
        placed_count, victim_count, taken_count = before
        self.scheduler.undo(placed_count)
        self._preemption.undo(victim_count)
        self._quotas.undo(taken_count)

    def _step(self, task: objects.Task, found: Attempt, alone: bool, may_preempt: bool) -> str:
        """One task of a unit; empty where it is placed or promised a host, else why not."""
        service = self._service(task.service_id)
        if service is None:
            return "its service is removed"
        if service.meta.id not in self._held:
            self._held[service.meta.id] = held_back(self._draft, service)
        held = self._held[service.meta.id]
        candidate = held if held is not None else candidate_of(self._draft, service, task, self._nodes)
        if isinstance(candidate, str):
            return candidate
        candidate = _with_volumes_of(candidate, found)
        if over := self._quotas.refusal(task):
            return over
        placement = self.scheduler.place(candidate)
        if placement.node is not None:
            self._quotas.take(task)
            found.placed.append((candidate, placement.node, objects.Lease(), ""))
            return ""
        key = _shape(candidate)
        if may_preempt and not moves(task) and key not in self._nowhere:
            room = self._preemption.make_room(candidate)
            if room is not None:
                self._quotas.take(task)
                found.placed.append((candidate, room.node, objects.Lease(), ""))
                found.rooms.append(room)
                return ""
            if alone:  # else there may be more when the rest of its group has given back what it took
                self._nowhere.add(key)
        return placement.reason

    def _lease(self, found: Attempt) -> tuple[objects.Task, str]:
        """Addresses and devices for all of them, before anything is assigned."""
        for number, (candidate, node, _, _) in enumerate(found.placed):
            try:
                devices = self.scheduler.hosts.devices.held_by(candidate.task.meta.id)
                self._draft.leases.devices(node, devices, candidate.task.meta.id)
                lease, address = self._draft.leases.task_address(node, candidate.task.meta.id)
            except Refused as refused:
                return candidate.task, refused.message
            found.placed[number] = (candidate, node, lease, address)
            found.devices[candidate.task.meta.id] = devices
        return objects.Task(), ""

    def _spare(self, service_id: str) -> Spare:
        service = self._service(service_id)
        tasks = self._draft.tasks_of(service_id)
        ending = (service, *sharing_services(self._draft, service)) if service is not None else ()
        rooms = [
            standing_of(each, self._draft.tasks_of(each.meta.id), self._nodes).room
            for each in ending
            if bounded(each.spec)
        ]
        if rooms:
            return Spare(min(rooms), True)
        return Spare(len({task.slot for task in tasks if serving(task)}) - 1, False)

    def _service(self, service_id: str) -> objects.Service | None:
        return self._draft.get(objects.Service, service_id)


def _takes_tasks(node: objects.Node) -> bool:
    closed = node.availability in (objects.AVAILABILITY_CORDONED, objects.AVAILABILITY_DRAINING)
    return node.state == objects.NODE_STATE_READY and not closed and not barring(node)


def _starting(task: objects.Task, now_unix_ms: int) -> bool:
    if not assigned(task) or not wanted(task) or task.status.state >= objects.TASK_STATE_RUNNING:
        return False
    return task.meta.updated_unix_ms + STARTING_MS_MAX > now_unix_ms


def _due(draft: Draft, task: objects.Task) -> bool:
    if assigned(task) or ended(task) or not wanted(task):
        return False
    if task.not_before_unix_ms > draft.now_unix_ms:
        draft.wake_at(task.not_before_unix_ms)
        return False
    return True


def _preempt(draft: Draft, victim: objects.Task, task: objects.Task, precedences: Precedences) -> None:
    priority, own = precedences.priority(task), precedences.priority(victim)
    name = f"{task.app}/{task.meta.name}"
    stop_task(draft, victim, f"makes room for {name}, whose priority is {priority}; its own is {own}")
    edited = draft.edit(victim)
    edited.preempted.task_id, edited.preempted.task = task.meta.id, name
    edited.preempted.priority, edited.preempted.own_priority = priority, own


def _too_large(unit: Unit) -> str:
    count = len(unit.tasks)
    if count <= GROUP_TASKS_MAX:
        return ""
    return f"{count} tasks of the group are pending, and at most {GROUP_TASKS_MAX} can be placed together"


def _reasons(unit: Unit, failed: objects.Task, reason: str) -> dict[str, str]:
    """For each of a unit's tasks, where one is why none is placed."""
    if not unit.precedence.group:
        return {failed.meta.id: reason}
    whole = f"its group {unit.precedence.group} is placed as a whole"
    reasons = {task.meta.id: f"{whole}, and {failed.meta.name} is not: {reason}" for task in unit.tasks}
    reasons[failed.meta.id] = f"{reason}; {whole}" if len(unit.tasks) > 1 else reason
    return reasons


def ends_for(room: Room) -> list[str]:
    """Names of the tasks whose end makes that room."""
    for_it = [task for task in room.ending if task.preempted.task_id == room.task.meta.id]
    return sorted(f"{task.app}/{task.meta.name}" for task in [*room.victims, *(for_it or room.ending)])


def _waits(room: Room) -> str:
    names = ends_for(room)
    verb = "has" if len(names) == 1 else "have"
    return f"waits until {names_text(names, 'tasks')} on {room.node.meta.name} {verb} ended, which makes room for it"


def _with_volumes_of(candidate: Candidate, found: Attempt) -> Candidate:
    """The same, bound to where earlier tasks of its unit will have a volume that it uses too."""
    where = {
        volume.meta.id: node.meta.id
        for other, node, _, _ in (found.placed if candidate.volumes else ())
        for volume in other.volumes
    }
    if not where:
        return candidate
    volumes = []
    for volume in candidate.volumes:
        bound = objects.Volume()
        bound.CopyFrom(volume)
        bound.node_id = volume.node_id or where.get(volume.meta.id, "")
        volumes.append(bound)
    return replace(candidate, volumes=volumes)


def _shape(candidate: Candidate) -> tuple[object, ...]:
    """Tasks with the same one fit the same hosts."""
    task = candidate.task
    tied = tuple(volume.meta.id for volume in candidate.volumes)
    slot = task.slot if task.spec.HasField("placement") else 0
    return (task.service_id, task.generation, candidate.image.manifest_digest, candidate.node_id, tied, slot)
