"""Which task had better be on another host: from fuller hosts to emptier ones, one move after the other. Pure.

A move must make the placement strictly better, level by level, as the scheduler ranks hosts: first how the tasks of the
service lie over what it is to be spread over, over hosts, and over zones; then, where that stays as it is, how much of
the hosts is reserved; then, of tasks that reserve nothing, how many tasks hosts have. On each level what gets smaller
is the sum of squares, over hosts or groups of them, and nothing on the levels before changes, of this service or of
another: so no row of moves comes back to where it began, and each row ends. A level counts only from a difference on
that is worth the move; of moves that are equal there the levels below it choose. What the task must have (constraints,
room, affinities that are required) it finds on the new host too, and it is liked there no less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.orchestration.budget_plan import bounded, standing_of, stops_first
from daemon.orchestration.draft import Draft
from daemon.orchestration.host_ports import host_ports
from daemon.orchestration.kinds import follows_hosts, is_job
from daemon.orchestration.placement_plan import candidate_of
from daemon.orchestration.rollout_course_plan import tracked
from daemon.orchestration.scheduler_board import spread_keys
from daemon.orchestration.scheduler_hosts import LOAD_PARTS, Flags, Numbers
from daemon.orchestration.scheduler_plan import Scheduler
from daemon.orchestration.sharing import owner_name, shared_words, shares, sharing_services
from daemon.orchestration.task_states import age_key, assigned, ended, named_volumes, settled, wanted
from proto import objects_pb2 as objects

LOAD_STEP = LOAD_PARTS // 10  # so much fuller is the old host than the new one will be
GIVEN_UP_MS = 1_800_000  # a service of which a task did not get ready elsewhere is left alone for so long
MOVES_PLANNED_MAX = 500
OutOfTime = Callable[[], bool]
Ranked = tuple[int, tuple[int, ...], int, int]  # level, what is gained there and on those below (< 0), old and new host
_SPREAD_STEP = 2  # a move between counts that differ by one only swaps them


@dataclass(frozen=True)
class Move:
    """`task` is on `source` and would be better on `target`."""

    task: objects.Task
    source: objects.Node
    target: objects.Node
    why: str


def left_alone(draft: Draft, service: objects.Service, nodes: Mapping[str, objects.Node]) -> str:
    """Why no task of the service is moved, for now or at all, in words; empty where they may be."""
    spec, tasks = service.spec, draft.tasks_of(service.meta.id)
    if service.removing:
        return "it is being removed"
    if is_job(spec) or follows_hosts(spec):
        return "its tasks run to their end" if is_job(spec) else "it has one task on each host"
    if shares(spec):
        return f"its tasks are where those of {owner_name(spec)} are, whose {shared_words(spec)} they share"
    if stops_first(spec):
        return "its tasks keep data in volumes, or are the only ones of their slots"
    for other in sharing_services(draft, service):
        if _needs_more_than_any_host(other.spec):
            return f"the tasks of {other.meta.name}, which share its {shared_words(other.spec)}, may not fit elsewhere"
    if spec.resources.devices:
        return "its tasks hold devices of their hosts"
    if spec.update.order == objects.UPDATE_ORDER_STOP_FIRST:
        return "its tasks stop before others start (update_config.order)"
    if service.HasField("traffic") or tracked(service):
        return "its rollout goes on"
    there = [task for task in tasks if wanted(task)]
    if len(there) != spec.replicas or not all(_at_rest(draft, service, task, nodes) for task in there):
        return "not all of its tasks have been ready for a moment"
    if any(not wanted(task) and assigned(task) and not ended(task) for task in tasks):
        return "tasks of it are being stopped"
    if bounded(spec) and standing_of(service, tasks, nodes).room < 0:
        return "its disruption budget"
    for cluster in draft.store.table(objects.Cluster):
        for each in cluster.rebalancing.given_up:
            if each.service_id == service.meta.id and each.unix_ms + GIVEN_UP_MS > draft.now_unix_ms:
                return "a task of it did not get ready on another host lately"
    return ""


class Balance:
    """The cluster as it would be after the moves that were made so far."""

    def __init__(self, draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
        self._draft = draft
        self._nodes = nodes
        self._scheduler = Scheduler(nodes.values(), draft.tasks(), draft.now_unix_ms)
        self._tasks: dict[str, list[objects.Task]] = {}
        self._loads: Numbers | None = None  # of all hosts, until a move is made

    def best_move(self, service: objects.Service, created_unix_ms_max: int) -> Move | None:
        """Of a task of the service; None: none has a better place. Tasks that are younger stay."""
        tasks = self._movable(service)
        by_host: dict[int, objects.Task] = {}
        for task in sorted(tasks, key=age_key):  # the youngest of each host
            if task.meta.created_unix_ms <= created_unix_ms_max:
                by_host[self._scheduler.hosts.index[task.node_id]] = task
        best: tuple[Ranked, objects.Task] | None = None
        fits: Flags | None = None
        for source, task in sorted(by_host.items()):
            if fits is None or task.spec.HasField("placement"):
                found = candidate_of(self._draft, service, task, self._nodes)
                if isinstance(found, str):
                    return None
                fits = self._scheduler.fits(found)
                if not task.spec.HasField("placement") and not self._uneven(task, list(by_host), fits):
                    return None
            ranked = self._target(task, source, fits)
            if ranked is not None and (best is None or ranked < best[0]):
                best = (ranked, task)
        return self._move(best[1], best[0]) if best is not None else None

    def make(self, move: Move) -> None:
        """From now on the task counts where it is moved to."""
        hosts, tasks = self._scheduler.hosts, self._tasks[move.task.service_id]
        self._scheduler.move(move.task, hosts.index[move.source.meta.id], hosts.index[move.target.meta.id])
        there = objects.Task()
        there.CopyFrom(move.task)
        there.node_id = move.target.meta.id
        tasks[tasks.index(move.task)] = there
        self._loads = None

    def _movable(self, service: objects.Service) -> Sequence[objects.Task]:
        if service.meta.id not in self._tasks:
            tasks = [task for task in self._draft.tasks_of(service.meta.id) if wanted(task)]
            self._tasks[service.meta.id] = [] if left_alone(self._draft, service, self._nodes) else tasks
        return self._tasks[service.meta.id]

    def _uneven(self, task: objects.Task, sources: Sequence[int], fits: Flags) -> bool:
        """Whether any level could make any difference to any task of the service: mostly not, at little cost."""
        own, hosts, asked = self._scheduler.tasks_of(task.service_id), self._scheduler.hosts, task.spec.resources
        columns = [own.by_host]
        for keys, _ in spread_keys(task.spec):
            if keys is not None:
                columns.append(own.by_group(keys)[hosts.groups(keys)[0]])
        reserves = asked.cpu_reserved_millis or asked.memory_reserved_bytes
        if not reserves:
            columns.append(hosts.task_count)
        if not fits.any():
            return False
        if any(column[sources].max() - column[fits].min() >= _SPREAD_STEP for column in columns):
            return True
        if self._loads is None:
            self._loads = hosts.load(np.arange(hosts.count), 0, 0)
        return bool(reserves and self._loads[sources].max() - self._loads[fits].min() >= LOAD_STEP)

    def _target(self, task: objects.Task, source: int, fits: Flags) -> Ranked | None:
        """The best move of the task; None: it is best where it is."""
        allowed = fits.copy()
        allowed[source] = False
        own = self._scheduler.tasks_of(task.service_id)
        if own.failures is not None:
            allowed &= own.failures == 0
        if task.spec.placement.affinities:
            liking = self._scheduler.liking(task)
            allowed &= liking >= liking[source]
        rows, level, gains = np.flatnonzero(allowed), 0, list[int]()
        for difference in self._spread(task, source):
            if not len(rows):
                return None
            gain = difference[rows]
            if gains or gain.max() >= _SPREAD_STEP:
                gains.append(-int(gain.max()))
                rows = rows[gain == gain.max()]
            else:
                rows, level = rows[gain == 1], level + 1
        if task.spec.placement.pack or not len(rows):
            return (level, tuple(gains), source, int(rows[0])) if gains else None
        asked = task.spec.resources
        reserves = bool(asked.cpu_reserved_millis or asked.memory_reserved_bytes)
        gain, worth = self._by_load(asked, source, rows) if reserves else self._by_count(source, rows)
        if not gains:
            rows, gain, level = rows[worth], gain[worth], level if reserves else level + 1
            if not len(rows):
                return None
        gains.append(-int(gain.max()))
        return level, tuple(gains), source, int(rows[gain.argmax()])

    def _spread(self, task: objects.Task, source: int) -> Iterator[Numbers]:
        """Level by level, of every host: how many tasks of the service are more at the source than there; 1 where it
        makes no difference."""
        own, hosts = self._scheduler.tasks_of(task.service_id), self._scheduler.hosts
        for keys, _ in spread_keys(task.spec):
            if keys is not None:
                group = hosts.groups(keys)[0]
                counts = own.by_group(keys)
                difference = counts[group[source]] - counts[group]
                difference[group == group[source]] = 1
                yield difference
            elif not task.spec.placement.pack:
                yield own.by_host[source] - own.by_host

    def _by_load(self, asked: objects.Resources, source: int, rows: Numbers) -> tuple[Numbers, Flags]:
        """Of each of these hosts what a move there gains, and whether that is worth it."""
        hosts, cpu, memory = self._scheduler.hosts, asked.cpu_reserved_millis, asked.memory_reserved_bytes
        full, emptied = hosts.load_at(source, 0, 0), hosts.load_at(source, -cpu, -memory)
        before, after = hosts.load(rows, 0, 0), hosts.load(rows, cpu, memory)
        gain = full**2 + before**2 - emptied**2 - after**2
        return gain, (full - after >= LOAD_STEP) & (gain > 0)

    def _by_count(self, source: int, rows: Numbers) -> tuple[Numbers, Flags]:
        """The same by how many tasks hosts have."""
        count = int(self._scheduler.hosts.task_count[source])
        gain = count - self._scheduler.hosts.task_count[rows]
        return gain, gain >= max(_SPREAD_STEP, count // 4 + 1)

    def _move(self, task: objects.Task, ranked: Ranked) -> Move:
        level, _, source, target = ranked
        hosts = self._scheduler.hosts
        return Move(task, hosts.nodes[source], hosts.nodes[target], self._words(task, level, source, target))

    def _words(self, task: objects.Task, level: int, source: int, target: int) -> str:
        own, hosts = self._scheduler.tasks_of(task.service_id), self._scheduler.hosts
        old, new = hosts.nodes[source].meta.name, hosts.nodes[target].meta.name
        levels = [keys for keys, _ in spread_keys(task.spec) if keys is not None or not task.spec.placement.pack]
        if level < len(levels):
            keys = levels[level]
            if keys is None:
                return f"{old} has {own.by_host[source]} tasks of the service, {new} has {own.by_host[target]}"
            group, counts = hosts.groups(keys)[0], own.by_group(keys)
            word = keys[-1].rpartition(".")[2]
            more, less = counts[group[source]], counts[group[target]]
            return f"the {word} of {old} has {more} tasks of the service, that of {new} {less}"
        if level == len(levels):
            full, empty = (hosts.load_at(host, 0, 0) * 100 // LOAD_PARTS for host in (source, target))
            return f"{full}% of {old} is reserved, {empty}% of {new}"
        return f"{old} has {hosts.task_count[source]} tasks, {new} has {hosts.task_count[target]}"


def planned_moves(
    draft: Draft, services: Sequence[objects.Service], nodes: Mapping[str, objects.Node], out_of_time: OutOfTime
) -> tuple[list[Move], bool]:
    """All moves in their order, with the cluster as it is; and whether these are all, or there was no time for more."""
    balance, moves = Balance(draft, nodes), list[Move]()
    again = True
    while again:
        again = False
        for service in services:
            while (move := balance.best_move(service, draft.now_unix_ms)) is not None:
                if len(moves) >= MOVES_PLANNED_MAX:
                    return moves, False
                balance.make(move)
                moves.append(move)
                again = True
                if out_of_time():  # one large service may have hundreds
                    return moves, False
            if out_of_time():
                return moves, False
    return moves, True


def _needs_more_than_any_host(spec: objects.ServiceSpec) -> bool:
    """A host that has room for a task of another service may have none for one of this."""
    asked = spec.resources
    reserves = asked.cpu_reserved_millis or asked.memory_reserved_bytes or asked.devices
    return bool(reserves or host_ports(spec) or spec.constraints or spec.HasField("placement") or named_volumes(spec))


def _at_rest(draft: Draft, service: objects.Service, task: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    node = nodes.get(task.node_id)
    return (
        node is not None
        and node.state == objects.NODE_STATE_READY
        and node.availability != objects.AVAILABILITY_DRAINING
        and task.generation == service.generation
        and settled(task, draft.now_unix_ms)
    )
