"""Whose turn it is: services by priority, and pending tasks in the units that are placed as a whole. Pure.

What counts is what the service says now, not when a task of it was made: another priority needs no new tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from daemon.orchestration.task_states import age_key
from proto import objects_pb2 as objects

GROUP_TASKS_MAX = 500  # that are placed at once
NONE = objects.Precedence()


@dataclass(frozen=True)
class Unit:
    """Pending tasks that are placed together or not at all: one, or those of a group, which have one priority."""

    tasks: Sequence[objects.Task]
    precedence: objects.Precedence


class Precedences:
    """Of all services, as `find` gives them by id."""

    def __init__(self, find: Callable[[str], objects.Service | None], services: Iterable[objects.Service]) -> None:
        self._find = find
        self._known: dict[str, objects.Precedence] = {}
        self._services = services
        self._lowest: int | None = None

    def of(self, task: objects.Task) -> objects.Precedence:
        known = self._known.get(task.service_id)
        if known is None:
            service = self._find(task.service_id)
            known = self._known[task.service_id] = service.spec.precedence if service is not None else NONE
        return known

    def priority(self, task: objects.Task) -> int:
        return self.of(task).priority

    @property
    def lowest(self) -> int:
        """Nothing has a lower priority than this."""
        if self._lowest is None:
            self._lowest = min((service.spec.precedence.priority for service in self._services), default=0)
        return self._lowest

    def units(self, pending: Iterable[objects.Task]) -> list[Unit]:
        """In the order in which they are placed: the highest priority first, then the oldest."""
        groups: dict[tuple[str, ...], list[objects.Task]] = {}
        for task in sorted(pending, key=age_key):
            group = self.of(task).group
            key = (task.meta.tenant, task.app, group) if group else (task.meta.id,)
            groups.setdefault(key, []).append(task)
        units = [self._unit(tasks) for tasks in groups.values()]
        units.sort(key=lambda unit: -unit.precedence.priority)  # stable: those of a priority stay in their order
        return units

    def _unit(self, tasks: list[objects.Task]) -> Unit:
        if len(tasks) > 1:
            tasks.sort(key=_size_key)  # what needs most has the choice
        return Unit(tasks, self.of(tasks[0]))


def _size_key(task: objects.Task) -> tuple[object, ...]:
    resources = task.spec.resources
    return (-resources.memory_reserved_bytes, -resources.cpu_reserved_millis, *age_key(task))
