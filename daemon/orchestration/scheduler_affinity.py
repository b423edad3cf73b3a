"""Where the tasks of a service lie to each other and to those of others: bounds, what is required, what is liked. Pure.

A task that is being replaced within its slot does not count against the one that replaces it: both are one replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.orchestration import constraints
from daemon.orchestration.scheduler_filters import Filter
from daemon.orchestration.scheduler_hosts import Flags, Hosts, Numbers, ServiceTasks
from daemon.orchestration.scheduler_words import PER_NODE_MAX, Refusal
from proto import objects_pb2 as objects

HOST_KEY = "node.id"


@dataclass(frozen=True)
class Guard:
    """A service whose tasks, where they are, keep those of another away: the reverse of its required anti-affinity."""

    service: str
    same: tuple[str, ...]
    tasks: ServiceTasks


def near(affinity: objects.Affinity) -> tuple[str, ...]:
    """Keys whose values are the same of hosts that count as near."""
    return (affinity.same or HOST_KEY,)


class Rules:
    """What holds for a task because of where others are now. `own`: its service's tasks; `other` finds those of a
    service of its app by name; `slot`: of the task, where one of that slot is somewhere already, else 0."""

    def __init__(
        self,
        hosts: Hosts,
        task: objects.Task,
        slot: int,
        own: ServiceTasks,
        other: Callable[[str], ServiceTasks],
        guards: Sequence[Guard],
    ) -> None:
        self.own = own
        self._hosts = hosts
        self._slot = slot
        self._service = task.service
        self._affinities = list(task.spec.placement.affinities)
        self._per_node_max = task.spec.placement.per_node_max
        self._guards = guards
        self._of = {
            each.service: own if each.service == task.service else other(each.service)
            for each in self._affinities
            if each.service
        }
        self._own_affinities = [each for each in self._affinities if each.service and self._of[each.service] is own]
        self._watched = [tasks for tasks in self._of.values() if tasks is not own] + [one.tasks for one in guards]
        self.about_itself = bool(self._own_affinities or self._per_node_max)

    def version(self) -> tuple[int, ...]:
        """Differs when tasks of other services came that these rules are about."""
        return tuple([len(tasks.log) for tasks in self._watched]) if self._watched else ()

    def filters(self) -> Iterator[Filter]:
        """What must hold on a host."""
        if self._per_node_max:
            yield self._bound_filter()
        for affinity in self._affinities:
            if affinity.required and affinity.service:
                yield self._required_filter(affinity)
        for guard in self._guards:
            counts = guard.tasks.by_group(guard.same)[self._hosts.groups(guard.same)[0]]
            where = _where(guard.same)
            words = f"a task of {guard.service}, which keeps {self._service} away{where}"
            remedy = f"have {guard.service} elsewhere, or without its anti_affinity"
            yield Filter(Refusal(f"guard {guard.service}{where}", f"has {words}", f"have {words}", remedy), counts > 0)

    def liking(self) -> Numbers:
        """By host, how much of what the task prefers it has: the sum of the weights."""
        total = self._hosts.zeros()
        for affinity in self._affinities:
            if affinity.required:
                continue
            if affinity.service:
                flags = self._near_flags(affinity)
            else:
                flags = self._hosts.accepting(constraints.parse(affinity.constraint))
            total += _signed_weight(affinity) * flags
        return total

    def after(self, host: int) -> Iterator[tuple[Numbers, int | None]]:
        """Once the service, and only it, has got one task there more: hosts, and by how much more they are liked; None:
        they do not fit any more."""
        if self._per_node_max and self.own.slots_by_host[host] >= self._per_node_max:
            yield np.array([host]), None
        for affinity in self._own_affinities:
            keys = near(affinity)
            if self.own.by_group(keys)[self._hosts.groups(keys)[0][host]] != 1:
                continue
            rows = self._hosts.rows_like(keys, host)
            if not affinity.required:
                yield rows, _signed_weight(affinity)
            elif affinity.anti:
                yield rows, None
            elif len(self.own.log) == 1:
                away = np.ones(self._hosts.count, dtype=np.bool_)
                away[rows] = False
                yield np.flatnonzero(away), None

    def _bound_filter(self) -> Filter:
        tasks = "task" if self._per_node_max == 1 else "tasks"
        words = f"{self._per_node_max} {tasks} of the service, {PER_NODE_MAX}"
        remedy = "raise deploy.placement.max_replicas_per_node, have fewer replicas, or add a host"
        refuses = self.own.other_slots_by_host(self._slot) >= self._per_node_max
        return Filter(Refusal("bound", f"has {words}", f"have {words}", remedy), refuses)

    def _required_filter(self, affinity: objects.Affinity) -> Filter:
        flags = self._near_flags(affinity)
        where = _where(near(affinity))
        if affinity.anti:
            words = f"a task of {affinity.service}{where}"
            remedy = f"have {affinity.service} elsewhere, or make the anti_affinity one that is not required"
            return Filter(Refusal(f"near {affinity.service}{where}", f"has {words}", f"have {words}", remedy), flags)
        words = f"no task of {affinity.service}{where}"
        remedy = f"have a task of {affinity.service} there, or make the affinity one that is not required"
        refuses = ~flags
        if affinity.service == self._service and not flags.any():
            refuses = flags  # the first of its own may be anywhere
        return Filter(Refusal(f"far {affinity.service}{where}", f"has {words}", f"have {words}", remedy), refuses)

    def _near_flags(self, affinity: objects.Affinity) -> Flags:
        keys = near(affinity)
        tasks = self._of[affinity.service]
        counts = tasks.others_by_group(self._slot, keys) if tasks is self.own else tasks.by_group(keys)
        flags: Flags = counts[self._hosts.groups(keys)[0]] > 0
        return flags


def _signed_weight(affinity: objects.Affinity) -> int:
    return max(affinity.weight, 1) * (-1 if affinity.anti else 1)


def _where(keys: tuple[str, ...]) -> str:
    if keys == (HOST_KEY,):
        return ""
    return f" at the same {' and '.join(key.removeprefix(constraints.LABEL_PREFIX) for key in keys)}"
