"""Room for a task that fits nowhere: the host where least is lost, and what is stopped there. Pure.

Only CPU, memory, addresses, ports and devices can be made free, and only by tasks of a lower priority; whatever else is
against a host stays so. Tasks that end anyway are waited for first. Otherwise the least harm is, in this order: the
lowest priority, then tasks that leave their service others that are ready, that can move and are of no group, then the
fewest, then those that serve nobody. No task is stopped without which it would fit too, and none against its service's
disruption budget. What was chosen is promised to the task for the rest of the plan, so that nothing of lower priority
comes in between; while the tasks end, every plan finds the same host again, as nothing need be stopped there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from daemon.orchestration.host_ports import HostPort, clash
from daemon.orchestration.kinds import follows_hosts
from daemon.orchestration.precedence import Precedences
from daemon.orchestration.scheduler_hosts import Flags, Numbers
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from daemon.orchestration.sharing import shares
from daemon.orchestration.task_states import age_key, assigned, ended, gone, named_volumes, serving, wanted
from proto import objects_pb2 as objects

HOSTS_EXAMINED_MAX = 50  # task by task; those where least is missing
ENDING = -(1 << 40)  # below every priority


@dataclass(frozen=True)
class Spare:
    """How many ready tasks a service may lose; `bound`: more must not be stopped, rather than had better not."""

    count: int
    bound: bool


@dataclass(frozen=True)
class Room:
    """What is being made for `task` on a host: `victims` are to be stopped, `ending` end already (without victims: all
    that end there)."""

    task: objects.Task
    node: objects.Node
    victims: Sequence[objects.Task]
    ending: Sequence[objects.Task]


class Amount(NamedTuple):
    cpu_millis: int
    memory_bytes: int
    addresses: int

    def plus(self, other: Amount) -> Amount:
        return Amount(self[0] + other[0], self[1] + other[1], self[2] + other[2])

    def minus(self, other: Amount) -> Amount:
        return Amount(self[0] - other[0], self[1] - other[1], self[2] - other[2])

    def covers(self, short: Amount) -> bool:
        return self[0] >= short[0] and self[1] >= short[1] and self[2] >= short[2]


@dataclass(frozen=True)
class Held:
    """A task on a host, with what of it is asked again and again. `dear`: it cannot run elsewhere, or others are of no
    use without it."""

    task: objects.Task
    priority: int
    amount: Amount  # that its host has more when nothing of it is left
    ends: bool  # by itself
    serving: bool
    dear: bool
    age: tuple[int, str]


class Preemption:
    """Of one plan. `tasks`: all of the cluster as the scheduler has counted them; `spare`: of a service by id."""

    def __init__(
        self,
        scheduler: Scheduler,
        tasks: Iterable[objects.Task],
        precedences: Precedences,
        spare: Callable[[str], Spare],
    ) -> None:
        self._scheduler = scheduler
        self._all = tasks
        self._precedences = precedences
        self._spare_of = spare
        self._spares: dict[str, Spare] = {}
        self._there: _There | None = None
        self._victims: list[objects.Task] = []
        self._victim_ids: set[str] = set()

    @property
    def victim_count(self) -> int:
        """How many were chosen so far: what `undo` can go back to."""
        return len(self._victims)

    def undo(self, victim_count: int) -> None:
        """Spares all but the first so many; what was promised is the scheduler's to take back."""
        while len(self._victims) > victim_count:
            victim = self._victims.pop()
            self._victim_ids.remove(victim.meta.id)
            self._there_now().set_priority(victim, self._precedences.priority(victim))
            self._take_spare(victim, -1)

    def make_room(self, candidate: Candidate) -> Room | None:
        """For a task that fits nowhere now; promises it the host. None: its priority does not help it."""
        precedence = self._precedences.of(candidate.task)
        if precedence.never_preempts or precedence.priority <= self._precedences.lowest:
            return None
        fits = self._scheduler.fits_but_for_room(candidate)
        if not fits.any():
            return None
        there = self._there_now()
        for level in [ENDING, *there.levels_below(precedence.priority)]:
            found = self._best(candidate.task, fits, level)
            if found is not None:
                return self._promise(candidate.task, *found)
        return None

    def _there_now(self) -> _There:
        if self._there is None:
            self._there = _There(self._scheduler, self._all, self._precedences)
        return self._there

    def _best(self, task: objects.Task, fits: Flags, level: int) -> tuple[int, list[Held]] | None:
        rows = self._rows(task, fits, level)
        best: tuple[tuple[int, ...], int, list[Held]] | None = None
        for row in rows.tolist():
            victims = self._pick(task, row, level)
            if victims is None:
                continue
            harm = (*self._harm(victims), row)
            if best is None or harm < best[0]:
                best = (harm, row, victims)
        return best[1:] if best is not None else None

    def _rows(self, task: objects.Task, fits: Flags, level: int) -> Numbers:
        """Where it fits when all tasks up to that priority are gone, ports and devices aside; where least is missing
        first."""
        hosts, asked = self._scheduler.hosts, task.spec.resources
        cpu, memory, addresses = self._there_now().freed(level)
        cpu_short = asked.cpu_reserved_millis - hosts.cpu_free_millis
        memory_short = asked.memory_reserved_bytes - hosts.memory_free_bytes
        if not asked.cpu_reserved_millis:
            cpu_short = hosts.zeros()
        if not asked.memory_reserved_bytes:
            memory_short = hosts.zeros()
        enough = (cpu >= cpu_short) & (memory >= memory_short) & (addresses + hosts.addresses_free > 0)
        rows = np.flatnonzero(fits & enough)
        if len(rows) <= HOSTS_EXAMINED_MAX:
            return rows
        parts = np.maximum(
            cpu_short[rows] / np.maximum(hosts.cpu_millis[rows], 1),
            memory_short[rows] / np.maximum(hosts.memory_bytes[rows], 1),
        )
        return rows[np.argsort(parts, kind="stable")[:HOSTS_EXAMINED_MAX]]

    def _pick(self, task: objects.Task, row: int, level: int) -> list[Held] | None:
        """What to stop on that host so that the task fits; None: that does not make it fit."""
        hosts, asked = self._scheduler.hosts, task.spec.resources
        short = Amount(
            asked.cpu_reserved_millis - hosts.cpu_free_millis.item(row) if asked.cpu_reserved_millis else 0,
            asked.memory_reserved_bytes - hosts.memory_free_bytes.item(row) if asked.memory_reserved_bytes else 0,
            1 - hosts.addresses_free.item(row),
        )
        ending = [each for each in self._there_now().on(row) if self._ends(each)]
        others = self._open_to(task, row, level)
        needed = self._holders(task, row, ending, others)
        if needed is None:
            return None
        freed = Amount(0, 0, 0)
        for each in [*ending, *others]:
            freed = freed.plus(each.amount)
        if not freed.covers(short):
            return None
        with _Devices(self._scheduler, row, task, [*ending, *others]) as devices:
            if not devices.enough():
                return None
            victims = []
            for each in others:
                without = freed.minus(each.amount)
                if each.task.meta.id in needed or not without.covers(short) or not devices.enough_with(each.task):
                    victims.append(each)
                else:
                    freed = without
        return victims

    def _ends(self, held: Held) -> bool:
        return held.ends or held.task.meta.id in self._victim_ids

    def _open_to(self, task: objects.Task, row: int, level: int) -> list[Held]:
        """Those that may be stopped for the task at that level, what had better stay first; of services with a budget
        only as many as that allows, and none that the task must be near to."""
        near = {each.service for each in task.spec.placement.affinities if each.required and not each.anti}
        found = [
            each
            for each in self._there_now().on(row)
            if each.priority <= level
            and not self._ends(each)
            and not (near and each.task.app == task.app and each.task.service in near)
        ]
        found.sort(key=self._kept_key)
        taken: dict[str, int] = {}
        kept: set[str] = set()
        for each in reversed(found):
            spare = self._spare(each.task.service_id)
            if each.serving and spare.bound:
                taken[each.task.service_id] = taken.get(each.task.service_id, 0) + 1
                if taken[each.task.service_id] > spare.count:
                    kept.add(each.task.meta.id)
        return [each for each in found if each.task.meta.id not in kept] if kept else found

    def _holders(self, task: objects.Task, row: int, ending: Sequence[Held], others: Sequence[Held]) -> set[str] | None:
        """Ids of those of `others` whose ports the task needs; None: another holds one of them."""
        needed: set[str] = set()
        for port in self._scheduler.ports_of(task):
            held = sum(self._clashes(each.task, port) for each in ending if not ended(each.task))
            for each in others:
                if count := self._clashes(each.task, port):
                    held += count
                    needed.add(each.task.meta.id)
            if held < self._scheduler.hosts.count_port(row, port):
                return None
        return needed

    def _clashes(self, task: objects.Task, port: HostPort) -> int:
        return sum(clash(port, taken) for taken in self._scheduler.ports_of(task))

    def _harm(self, victims: Sequence[Held]) -> tuple[int, ...]:
        priorities = [each.priority for each in victims]
        lost: dict[str, int] = {}
        for each in victims:
            lost[each.task.service_id] = lost.get(each.task.service_id, 0) + each.serving
        dear = sum(each.dear for each in victims)
        dear += sum(count > self._spare(service_id).count for service_id, count in lost.items())
        return (
            max(priorities, default=ENDING),
            dear,
            len(victims),
            sum(priorities),
            sum(each.serving for each in victims),
        )

    def _kept_key(self, held: Held) -> tuple[object, ...]:
        """Sorts what had better stay to the front."""
        last = held.serving and self._spare(held.task.service_id).count <= 0
        cpu_millis, memory_bytes, _ = held.amount
        return (-held.priority, not held.dear, not last, not held.serving, memory_bytes, cpu_millis, held.age)

    def _promise(self, task: objects.Task, row: int, victims: list[Held]) -> Room:
        for victim in victims:
            self._victims.append(victim.task)
            self._victim_ids.add(victim.task.meta.id)
            self._there_now().set_priority(victim.task, ENDING)
            self._take_spare(victim.task, 1)
        ending = [each for each in self._there_now().on(row) if self._ends(each)]
        with _Devices(self._scheduler, row, task, ending):
            self._scheduler.promise(row, task)
        stopped = [victim.task for victim in victims]
        before = [each.task for each in ending if all(each is not victim for victim in victims)]
        if victims:  # what else ends there may be for others
            before = [each for each in before if each.preempted.task_id == task.meta.id]
        return Room(task, self._scheduler.hosts.nodes[row], stopped, before)

    def _spare(self, service_id: str) -> Spare:
        known = self._spares.get(service_id)
        if known is None:
            known = self._spares[service_id] = self._spare_of(service_id)
        return known

    def _take_spare(self, task: objects.Task, count: int) -> None:
        if serving(task):
            known = self._spare(task.service_id)
            self._spares[task.service_id] = Spare(known.count - count, known.bound)


class _Devices:
    """While it is entered, those tasks on a row hold no devices, but for those that `enough_with` gave them back to."""

    def __init__(self, scheduler: Scheduler, row: int, task: objects.Task, tasks: Sequence[Held]) -> None:
        self._stock = scheduler.hosts.devices
        self._row = row
        self._asked = task.spec.resources.devices
        self._tasks = [each.task for each in tasks] if self._asked else ()
        self._held: dict[str, Sequence[objects.AllottedDevice]] = {}

    def __enter__(self) -> _Devices:
        for task in self._tasks:
            if devices := self._stock.held_by(task.meta.id):
                self._held[task.meta.id] = devices
                self._stock.release(task.meta.id)
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            if task.meta.id in self._held:
                self._stock.hold(self._row, task, self._held.pop(task.meta.id))

    def enough(self) -> bool:
        """Whether the task would get all that it asks for."""
        return not self._asked or self._stock.allot(self._row, self._asked) is not None

    def enough_with(self, task: objects.Task) -> bool:
        """Whether it would still if that one keeps what it holds; then that has it again."""
        if task.meta.id not in self._held:
            return True
        self._stock.hold(self._row, task, self._held[task.meta.id])
        if self.enough():
            del self._held[task.meta.id]
            return True
        self._stock.release(task.meta.id)
        return False


class _There:
    """Tasks that hold something of their hosts, as columns: one row a task."""

    def __init__(self, scheduler: Scheduler, tasks: Iterable[objects.Task], precedences: Precedences) -> None:
        hosts = scheduler.hosts
        self._count = hosts.count
        self._precedences = precedences
        self._tasks: dict[int, list[objects.Task]] = {}
        self._held: dict[int, list[Held]] = {}
        self._rows: dict[str, int] = {}
        columns: list[tuple[int, int, int, int]] = []
        for task in tasks:
            host = hosts.index.get(task.node_id) if assigned(task) else None
            if host is None or (ended(task) and gone(task)):
                continue
            cpu_millis, memory_bytes, _ = _released(task)
            self._rows[task.meta.id] = len(columns)
            self._tasks.setdefault(host, []).append(task)
            columns.append((host, cpu_millis, memory_bytes, ENDING if _ends(task) else precedences.priority(task)))
        table = np.array(columns, dtype=np.int64).reshape(-1, 4)
        self._host, self._cpu, self._memory, self._priority = (table[:, number].copy() for number in range(4))

    def on(self, host: int) -> Sequence[Held]:
        known = self._held.get(host)
        if known is None:
            known = self._held[host] = [self._look(task) for task in self._tasks.get(host, ())]
        return known

    def set_priority(self, task: objects.Task, priority: int) -> None:
        self._priority[self._rows[task.meta.id]] = priority

    def levels_below(self, priority: int) -> list[int]:
        """Those that tasks have, the lowest first."""
        return [level for level in np.unique(self._priority).tolist() if ENDING < level < priority]

    def freed(self, level: int) -> tuple[Numbers, Numbers, Numbers]:
        """By host: CPU, memory and addresses of its tasks up to that priority."""
        chosen = self._priority <= level
        rows = self._host[chosen]

        def total(weights: Numbers) -> Numbers:
            found = np.zeros(self._count, dtype=np.int64)
            np.add.at(found, rows, weights)
            return found

        return total(self._cpu[chosen]), total(self._memory[chosen]), total(np.ones_like(rows))

    def _look(self, task: objects.Task) -> Held:
        precedence, spec = self._precedences.of(task), task.spec
        tied = named_volumes(spec) or spec.HasField("stateful") or follows_hosts(spec) or shares(spec)
        dear = precedence.group or tied
        return Held(task, precedence.priority, _released(task), _ends(task), serving(task), bool(dear), age_key(task))


def _ends(task: objects.Task) -> bool:
    return not wanted(task) or ended(task)


def _released(task: objects.Task) -> Amount:
    if ended(task):
        return Amount(0, 0, 1)
    resources = task.spec.resources
    return Amount(resources.cpu_reserved_millis, resources.memory_reserved_bytes, 1)
