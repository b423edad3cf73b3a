"""Which host a task goes to, or in words why to none. Pure: from a snapshot to placements.

A host must pass every filter (scheduler_filters.py). Of those that do, the task goes where its service
has not failed again and again lately (a broken host would draw every task, as none stays on it), then where it
has the fewest tasks, then to the zone (`node.labels.zone`) where it has the fewest, then where the least
is reserved, then where the fewest tasks are; ties go by name, so every run decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from daemon.errors import Refused
from daemon.orchestration import constraints
from daemon.orchestration.host_ports import HostPort, host_ports
from daemon.orchestration.quantities import names_text
from daemon.orchestration.scheduler_filters import Refusal, Room, explain, fixed_refusal
from daemon.orchestration.task_states import assigned, ended, gone, wanted
from proto import objects_pb2 as objects

FAILURE_WINDOW_MS = 300_000
FAILURES_TOLERATED = 2  # so many failures of a service on a host within the window count against it


@dataclass(frozen=True)
class Candidate:
    """A task that needs a host. `volumes`: those it uses, by name; one that has a host ties the task to it."""

    task: objects.Task
    image: objects.Image
    volumes: Sequence[objects.Volume] = ()


@dataclass(frozen=True)
class Placement:
    """Exactly one of the two is set."""

    node: objects.Node | None
    reason: str = ""


class Scheduler:
    """One pass: knows what is reserved on every node, and counts in what it places."""

    def __init__(self, nodes: Iterable[objects.Node], tasks: Iterable[objects.Task], now_unix_ms: int = 0) -> None:
        self._failed_since_unix_ms = now_unix_ms - FAILURE_WINDOW_MS
        self._rooms = {
            node.meta.id: Room(node) for node in sorted(nodes, key=lambda node: (node.meta.name, node.meta.id))
        }
        self._zone_counts: dict[str, dict[str, int]] = {}
        self._fixed: dict[tuple[str, int, str], tuple[list[Room], list[tuple[objects.Node, Refusal]]]] = {}
        self._ports: dict[tuple[str, int], tuple[HostPort, ...]] = {}
        for task in tasks:
            self._count(task)

    def place(self, candidate: Candidate) -> Placement:
        """Chooses a host and counts the task as placed there."""
        tied = self._tied_to(candidate)
        if isinstance(tied, Placement):
            return tied
        try:
            allowed, refused = self._fixed_filter(candidate)
        except Refused as error:
            return Placement(None, error.message)
        if tied is not None:
            allowed = [room for room in allowed if room is tied]
            refused = [(node, refusal) for node, refusal in refused if node.meta.id == tied.node.meta.id]
        resources, ports = candidate.task.spec.resources, self._ports_of(candidate.task)
        fitting = []
        refused = list(refused)
        for room in allowed:
            refusal = room.refusal(resources, ports)
            if refusal is None:
                fitting.append(room)
            else:
                refused.append((room.node, refusal))
        if not fitting:
            return Placement(None, self._explain(candidate, tied, refused))
        service_id = candidate.task.service_id
        zones = self._zone_counts.get(service_id, {})
        best = min(fitting, key=lambda room: _rank(room, service_id, zones))
        self._add(best, candidate.task)
        return Placement(best.node)

    def _count(self, task: objects.Task) -> None:
        room = self._rooms.get(task.node_id) if assigned(task) else None
        if room is None:
            return
        if ended(task):
            room.addresses_taken += not gone(task)
            lately = task.meta.updated_unix_ms > self._failed_since_unix_ms
            if task.status.state == objects.TASK_STATE_FAILED and lately:
                room.failures[task.service_id] = room.failures.get(task.service_id, 0) + 1
        else:
            self._add(room, task)

    def _add(self, room: Room, task: objects.Task) -> None:
        room.add(task.spec.resources)
        room.addresses_taken += 1
        room.ports_taken += self._ports_of(task)
        if wanted(task):
            room.by_service[task.service_id] = room.by_service.get(task.service_id, 0) + 1
            zones = self._zone_counts.setdefault(task.service_id, {})
            zone = room.zone
            zones[zone] = zones.get(zone, 0) + 1

    def _ports_of(self, task: objects.Task) -> tuple[HostPort, ...]:
        """Read once a version of a service: every task is counted in every pass."""
        key = (task.service_id, task.generation)
        known = self._ports.get(key)
        if known is None:
            known = self._ports[key] = host_ports(task.spec)
        return known

    def _fixed_filter(self, candidate: Candidate) -> tuple[list[Room], list[tuple[objects.Node, Refusal]]]:
        task = candidate.task
        key = (task.service_id, task.generation, candidate.image.manifest_digest)
        known = self._fixed.get(key)
        if known is None:
            wanted_constraints = constraints.parse_all(task.spec.constraints)
            needs_sctp = any(port.protocol == "sctp" for port in task.spec.ports)
            known = ([], [])
            for room in self._rooms.values():
                refusal = fixed_refusal(room.node, wanted_constraints, candidate.image, needs_sctp)
                if refusal is None:
                    known[0].append(room)
                else:
                    known[1].append((room.node, refusal))
            self._fixed[key] = known
        return known

    def _tied_to(self, candidate: Candidate) -> Room | Placement | None:
        """The one host that holds its volumes, or why there is none such; None: it is free."""
        by_node: dict[str, list[str]] = {}
        for volume in candidate.volumes:
            if volume.node_id:
                by_node.setdefault(volume.node_id, []).append(volume.meta.name)
        if not by_node:
            return None
        if len(by_node) > 1:
            where = "; ".join(
                f"{names_text(names, 'volumes')} on {self._name(node_id)}" for node_id, names in sorted(by_node.items())
            )
            return Placement(None, f"its volumes are on different hosts: {where}")
        ((node_id, names),) = by_node.items()
        room = self._rooms.get(node_id)
        if room is None:
            return Placement(
                None,
                f"bound by volume {names_text(names, 'volumes')} to a host that is not in the cluster any more",
            )
        return room

    def _explain(self, candidate: Candidate, tied: Room | None, refused: list[tuple[objects.Node, Refusal]]) -> str:
        if tied is None:
            return explain(refused)
        names = names_text([volume.meta.name for volume in candidate.volumes if volume.node_id], "volumes")
        node, refusal = refused[0]
        return f"bound to {node.meta.name} by volume {names}; {node.meta.name} {refusal.verb_one}"

    def _name(self, node_id: str) -> str:
        room = self._rooms.get(node_id)
        return room.node.meta.name if room is not None else "a host that is gone"


def _rank(room: Room, service_id: str, zones: Mapping[str, int]) -> tuple[int, int, int, float, int, str]:
    return (
        room.failures.get(service_id, 0) // FAILURES_TOLERATED,
        room.by_service.get(service_id, 0),
        zones.get(room.zone, 0),
        round(room.load(), 6),
        room.task_count,
        room.name,
    )
