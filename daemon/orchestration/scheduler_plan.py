"""Which host a task goes to, or in words why to none. Pure: from a snapshot to placements.

A host must pass every filter (scheduler_filters.py, scheduler_affinity.py). Those that do are ranked, level by level
(scheduler_board.py): where its service has not failed again and again lately (a broken host would draw every task, as
none stays on it); what the service prefers to be near; the fewest of its tasks in the groups of hosts that it is to be
spread over, then on the host itself, then, where it says nothing of spreading, in the zone (`node.labels.zone`); the
least reserved, in tenths of a host; its image there already; the least reserved exactly; the fewest tasks. A service
that packs takes the fullest host that has room, rather than the one with the fewest of its tasks or the least
reserved. Ties go by name, so every run decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.errors import Refused
from daemon.orchestration import constraints
from daemon.orchestration.device_filters import device_filters
from daemon.orchestration.host_ports import HostPort, host_ports
from daemon.orchestration.quantities import names_text
from daemon.orchestration.runtime_filters import runtime_filters
from daemon.orchestration.scheduler_affinity import Guard, Rules, near
from daemon.orchestration.scheduler_board import Board
from daemon.orchestration.scheduler_filters import Filter, explain, fixed_filters, needs_of, room_filters
from daemon.orchestration.scheduler_hosts import Flags, Hosts, Numbers, ServiceTasks
from daemon.orchestration.scheduler_words import Refusal
from daemon.orchestration.task_states import assigned, ended, gone, wanted
from proto import objects_pb2 as objects

FAILURE_WINDOW_MS = 300_000

Name = tuple[str, str, str]  # tenant, app, service


@dataclass(frozen=True)
class Candidate:
    """A task that needs a host. `volumes`: those it uses, by name; one that has a host ties the task to it.
    `node_id`: the only host that it may be on, of a service that follows hosts or shares namespaces with the task
    `shares_with`; else empty."""

    task: objects.Task
    image: objects.Image
    volumes: Sequence[objects.Volume] = ()
    node_id: str = ""
    shares_with: str = ""


@dataclass(frozen=True)
class Placement:
    """Exactly one of the two is set."""

    node: objects.Node | None
    reason: str = ""


@dataclass(frozen=True)
class Fixed:
    """What is the same for all tasks of a version of a service within a plan."""

    filters: list[Filter]
    allowed: Flags
    image_absent: Numbers | None  # None: no host is known to have it, or all are


class Scheduler:
    """One pass: knows what is reserved on every node, and counts in what it places."""

    def __init__(self, nodes: Iterable[objects.Node], tasks: Iterable[objects.Task], now_unix_ms: int = 0) -> None:
        self._failed_since_unix_ms = now_unix_ms - FAILURE_WINDOW_MS
        self.hosts = Hosts(nodes)
        self._services: dict[str, ServiceTasks] = {}
        self._uncounted: dict[str, list[tuple[int, int]]] = {}  # slot and host, of services nobody asked for as yet
        self._ids: dict[Name, str] = {}
        self._asked_for: set[Name] = set()  # by the rules of others
        self._guards: dict[Name, dict[tuple[str, tuple[str, ...]], Guard]] = {}
        self._guarded: set[tuple[str, int]] = set()  # versions of services whose tasks were looked at for guards
        self._fixed: dict[tuple[str, int, str], Fixed] = {}
        self._ports: dict[tuple[str, int], tuple[HostPort, ...]] = {}
        self._log: list[int] = []  # the host of each task that was placed
        self._placed: list[objects.Task] = []  # these tasks
        self._boards: dict[tuple[object, ...], Board] = {}
        self._said: dict[tuple[object, ...], tuple[int, str]] = {}
        for task in tasks:
            self._count(task)

    def place(self, candidate: Candidate) -> Placement:
        """Chooses a host and counts the task as placed there."""
        tied = self._tied_to(candidate)
        if isinstance(tied, Placement):
            return tied
        try:
            fixed = self._fixed_of(candidate)
        except Refused as error:
            return Placement(None, error.message)
        best = self._tied_place(candidate.task, fixed, tied) if tied is not None else self._best(candidate, fixed)
        if best is None:
            return Placement(None, self._explain(candidate, tied, fixed))
        self.promise(best, candidate.task)
        return Placement(self.hosts.nodes[best])

    def promise(self, host: int, task: objects.Task) -> None:
        """Counts the task as placed on that row, whether or not there is room as yet."""
        self._add(host, task)
        if asked := task.spec.resources.devices:
            self.hosts.devices.hold(host, task, self.hosts.devices.allot(host, asked) or ())
        self._log.append(host)
        self._placed.append(task)

    @property
    def placed_count(self) -> int:
        """How many tasks were placed so far: what `undo` can go back to."""
        return len(self._log)

    def undo(self, placed_count: int) -> None:
        """Takes back all placements after the first so many."""
        if len(self._log) == placed_count:
            return
        while len(self._log) > placed_count:
            host, task = self._log.pop(), self._placed.pop()
            resources = task.spec.resources
            cpu, memory = resources.cpu_reserved_millis, resources.memory_reserved_bytes
            self.hosts.remove(host, cpu, memory, self.ports_of(task))
            self.hosts.devices.release(task.meta.id)
            if wanted(task):
                self._service(task.service_id).remove_last(task.slot)
        self._boards.clear()  # which take room for something that only shrinks
        self._said.clear()

    def fits_but_for_room(self, candidate: Candidate) -> Flags:
        """By host: whether nothing keeps the task from it but what ends with the tasks there."""
        return self._fits(candidate, with_room=False)

    def fits(self, candidate: Candidate) -> Flags:
        """By host: whether nothing keeps the task from it."""
        return self._fits(candidate, with_room=True)

    def liking(self, task: objects.Task) -> Numbers:
        """By host: how much of what the task prefers to be near it has."""
        return self._rules(task).liking()

    def tasks_of(self, service_id: str) -> ServiceTasks:
        """Where the tasks of a service are, with those that were placed."""
        return self._service(service_id)

    def move(self, task: objects.Task, source: int, target: int) -> None:
        """Counts a task that is on one row as being on another one."""
        resources, ports = task.spec.resources, self.ports_of(task)
        amounts = (resources.cpu_reserved_millis, resources.memory_reserved_bytes, ports)
        self.hosts.remove(source, *amounts)
        self.hosts.add(target, *amounts)
        self._service(task.service_id).move(task.slot, source, target)
        self._boards.clear()
        self._said.clear()

    def _fits(self, candidate: Candidate, with_room: bool) -> Flags:
        tied = self._tied_to(candidate)
        fits = np.zeros(self.hosts.count, dtype=np.bool_)
        if isinstance(tied, Placement):
            return fits
        try:
            filters = self._filters(candidate.task, self._fixed_of(candidate))
        except Refused:
            return fits
        fits[slice(None) if tied is None else tied] = True
        for one in filters:
            if with_room or not one.room:
                fits &= ~one.refuses
        return fits

    def examine(self, candidate: Candidate) -> list[tuple[objects.Node, list[Refusal]]]:
        """All hosts by name, each with everything that keeps the task from it; nothing where it fits. Places nothing.
        Raises Refused where the task can be on no host whatever the hosts are."""
        tied = self._tied_to(candidate)
        if isinstance(tied, Placement):
            raise Refused(tied.reason)
        filters = self._filters(candidate.task, self._fixed_of(candidate))
        found = []
        for host, node in enumerate(self.hosts.nodes):
            refusals = list(dict.fromkeys(one.of(host) for one in filters if one.refuses[host]))
            if candidate.node_id and host != tied:
                refusals.insert(0, Refusal("other", "has a task of its own", "have tasks of their own"))
            elif tied is not None and host != tied:
                words = f"not hold volume {self._volumes_text(candidate)}, as {self.hosts.nodes[tied].meta.name} does"
                refusals.insert(0, Refusal("volume", f"does {words}", f"do {words}"))
            found.append((node, refusals))
        return found

    def _count(self, task: objects.Task) -> None:
        host = self.hosts.index.get(task.node_id) if assigned(task) else None
        if host is None:
            return
        if task.devices and not gone(task):
            self.hosts.devices.hold(host, task, task.devices)
        if ended(task):
            self.hosts.addresses_free[host] -= not gone(task)
            lately = task.meta.updated_unix_ms > self._failed_since_unix_ms
            if task.status.state == objects.TASK_STATE_FAILED and lately:
                self._service(task.service_id).add_failure(host)
        else:
            self._add(host, task)

    def _add(self, host: int, task: objects.Task) -> None:
        resources = task.spec.resources
        ports = self.ports_of(task)
        self.hosts.add(host, resources.cpu_reserved_millis, resources.memory_reserved_bytes, ports)
        if not wanted(task):
            return
        service = self._services.get(task.service_id)
        if service is not None:
            service.add(task.slot, host)
        else:
            self._uncounted.setdefault(task.service_id, []).append((task.slot, host))
        name = _name(task, task.service)
        if self._ids.get(name) != task.service_id:
            if name in self._asked_for:
                self._boards.clear()  # some of them know the service by another id, or as one without tasks
            self._ids[name] = task.service_id
        if (task.service_id, task.generation) not in self._guarded:
            self._guarded.add((task.service_id, task.generation))
            self._guard(task)

    def _guard(self, task: objects.Task) -> None:
        for affinity in task.spec.placement.affinities:
            if affinity.required and affinity.anti and affinity.service not in ("", task.service):
                guards = self._guards.setdefault(_name(task, affinity.service), {})
                key = (task.service_id, near(affinity))
                if key not in guards:
                    guards[key] = Guard(task.service, key[1], self._service(task.service_id))

    def _service(self, service_id: str) -> ServiceTasks:
        known = self._services.get(service_id)
        if known is None:
            known = self._services[service_id] = ServiceTasks(self.hosts)
            for slot, host in self._uncounted.pop(service_id, ()):
                known.add(slot, host)
        return known

    def _of_app(self, task: objects.Task) -> Callable[[str], ServiceTasks]:
        def find(service: str) -> ServiceTasks:
            name = _name(task, service)
            self._asked_for.add(name)
            return self._service(self._ids.get(name, ""))

        return find

    def ports_of(self, task: objects.Task) -> tuple[HostPort, ...]:
        """What the task publishes on its host; read once a version of a service, as all are counted in every pass."""
        key = (task.service_id, task.generation)
        known = self._ports.get(key)
        if known is None:
            known = self._ports[key] = host_ports(task.spec)
        return known

    def _fixed_of(self, candidate: Candidate) -> Fixed:
        task = candidate.task
        key = (task.service_id, task.generation, candidate.image.manifest_digest)
        known = self._fixed.get(key)
        if known is None:
            wanted_constraints = constraints.parse_all(task.spec.constraints)
            filters = fixed_filters(self.hosts, wanted_constraints, candidate.image, needs_of(task.spec))
            filters += runtime_filters(self.hosts, task.spec.container)
            allowed = np.ones(self.hosts.count, dtype=np.bool_)
            for one in filters:
                allowed &= ~one.refuses
            holders = [self.hosts.index[each] for each in candidate.image.node_ids if each in self.hosts.index]
            absent = np.ones(self.hosts.count, dtype=np.int64)
            absent[holders] = 0
            told = 0 < len(holders) < self.hosts.count
            known = self._fixed[key] = Fixed(filters, allowed, absent if told else None)
        return known

    def _rules(self, task: objects.Task) -> Rules:
        own = self._service(task.service_id)
        guards = self._guards.get(_name(task, task.service), {}) if self._guards else {}
        others = [guard for guard in guards.values() if guard.tasks is not own]
        slot = task.slot if own.has_slot(task.slot) else 0
        return Rules(self.hosts, task, slot, own, self._of_app(task), others)

    def _filters(self, task: objects.Task, fixed: Fixed) -> list[Filter]:
        return [*fixed.filters, *self._moving_filters(task, self._rules(task))]

    def _moving_filters(self, task: objects.Task, rules: Rules) -> list[Filter]:
        """Those that placing other tasks changes."""
        resources = task.spec.resources
        cpu, memory = resources.cpu_reserved_millis, resources.memory_reserved_bytes
        devices = device_filters(self.hosts, resources.devices)
        return [*rules.filters(), *devices, *room_filters(self.hosts, cpu, memory, self.ports_of(task))]

    def _tied_place(self, task: objects.Task, fixed: Fixed, host: int) -> int | None:
        if not fixed.allowed[host] or any(one.refuses[host] for one in self._moving_filters(task, self._rules(task))):
            return None
        return host

    def _best(self, candidate: Candidate, fixed: Fixed) -> int | None:
        task = candidate.task
        resources = task.spec.resources
        asked = (resources.cpu_reserved_millis, resources.memory_reserved_bytes)
        name = _name(task, task.service)
        key = (
            task.service_id,
            task.generation,
            candidate.image.manifest_digest,
            *asked,
            len(self._guards.get(name, ())),
        )
        if task.spec.HasField("placement") and self._service(task.service_id).has_slot(task.slot):
            return self._board(task, fixed).best()  # the rules do not count its own slot: a board of its own
        board = self._boards.get(key)
        if board is None:
            board = self._boards[key] = self._board(task, fixed)
        return board.best()

    def _board(self, task: objects.Task, fixed: Fixed) -> Board:
        rules = self._rules(task)
        return Board(
            self.hosts,
            task,
            self.ports_of(task),
            rules,
            fixed.allowed,
            fixed.image_absent,
            lambda: self._moving_filters(task, rules),
            self._log,
        )

    def _tied_to(self, candidate: Candidate) -> int | Placement | None:
        """The one host that it is for or that holds its volumes, or why there is none such; None: it is free."""
        by_node: dict[str, list[str]] = {}
        if candidate.node_id:
            return self.hosts.index[candidate.node_id]
        for volume in candidate.volumes:
            if volume.node_id:
                by_node.setdefault(volume.node_id, []).append(volume.meta.name)
        if not by_node:
            return None
        if len(by_node) > 1:
            where = "; ".join(
                f"{names_text(names, 'volumes')} on {self._node_name(node_id)}"
                for node_id, names in sorted(by_node.items())
            )
            return Placement(None, f"its volumes are on different hosts: {where}")
        ((node_id, names),) = by_node.items()
        host = self.hosts.index.get(node_id)
        if host is None:
            return Placement(
                None,
                f"bound by volume {names_text(names, 'volumes')} to a host that is not in the cluster any more",
            )
        return host

    def _explain(self, candidate: Candidate, tied: int | None, fixed: Fixed) -> str:
        task = candidate.task
        if tied is not None:
            name = self.hosts.nodes[tied].meta.name
            refusal = next(one.of(tied) for one in self._filters(task, fixed) if one.refuses[tied])
            if candidate.node_id:
                return f"{name}, which it is for, {refusal.verb_one}"
            return f"bound to {name} by volume {self._volumes_text(candidate)}; {name} {refusal.verb_one}"
        resources = task.spec.resources
        asked = (resources.cpu_reserved_millis, resources.memory_reserved_bytes)
        key = (task.service_id, task.generation, candidate.image.manifest_digest, task.slot, *asked)
        if not task.spec.HasField("placement"):
            key = (*key[:3], 0, *asked)  # all its tasks are refused alike: it need not be said anew for each
        placed, said = self._said.get(key, (-1, ""))
        if placed != len(self._log):
            said = explain(self.hosts, self._filters(task, fixed))
            self._said[key] = (len(self._log), said)
        return said

    def _volumes_text(self, candidate: Candidate) -> str:
        return names_text([volume.meta.name for volume in candidate.volumes if volume.node_id], "volumes")

    def _node_name(self, node_id: str) -> str:
        host = self.hosts.index.get(node_id)
        return self.hosts.nodes[host].meta.name if host is not None else "a host that is gone"


def _name(task: objects.Task, service: str) -> Name:
    return (task.meta.tenant, task.app, service)
