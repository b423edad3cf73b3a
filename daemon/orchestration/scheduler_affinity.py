"""Where the tasks of a service lie to each other and to those of others: bounds, what is required, what is liked. Pure.

A task that is being replaced within its slot does not count against the one that replaces it: both are one replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def affinity_filters(
    hosts: Hosts,
    task: objects.Task,
    own: ServiceTasks,
    other: Callable[[str], ServiceTasks],
    guards: list[Guard],
) -> Iterator[Filter]:
    """What must hold for the task on a host, as other tasks lie now; `other` finds a service of its app by name."""
    placement = task.spec.placement
    if placement.per_node_max:
        yield _bound_filter(own, task, placement.per_node_max)
    for affinity in placement.affinities:
        if affinity.required and affinity.service:
            yield _required_filter(hosts, task, affinity, own, other)
    for guard in guards:
        counts = guard.tasks.by_group(guard.same)[hosts.groups(guard.same)[0]]
        where = _where(guard.same)
        words = f"a task of {guard.service}, which keeps {task.service} away{where}"
        remedy = f"have {guard.service} elsewhere, or without its anti_affinity"
        yield Filter(Refusal(f"guard {guard.service}{where}", f"has {words}", f"have {words}", remedy), counts > 0)


def liking(hosts: Hosts, task: objects.Task, own: ServiceTasks, other: Callable[[str], ServiceTasks]) -> Numbers | None:
    """By host, how much of what the task prefers it has: the sum of the weights. None: it prefers nothing."""
    total: Numbers | None = None
    for affinity in task.spec.placement.affinities:
        if affinity.required:
            continue
        flags = _near_flags(hosts, task, affinity, own, other) if affinity.service else _constraint(hosts, affinity)
        weight = max(affinity.weight, 1) * (-1 if affinity.anti else 1)
        total = weight * flags if total is None else total + weight * flags
    return total


def _bound_filter(own: ServiceTasks, task: objects.Task, per_node_max: int) -> Filter:
    tasks = "task" if per_node_max == 1 else "tasks"
    words = f"{per_node_max} {tasks} of the service, {PER_NODE_MAX}"
    remedy = "raise deploy.placement.max_replicas_per_node, have fewer replicas, or add a host"
    refuses = own.other_slots_by_host(task.slot) >= per_node_max
    return Filter(Refusal("bound", f"has {words}", f"have {words}", remedy), refuses)


def _required_filter(
    hosts: Hosts,
    task: objects.Task,
    affinity: objects.Affinity,
    own: ServiceTasks,
    other: Callable[[str], ServiceTasks],
) -> Filter:
    flags = _near_flags(hosts, task, affinity, own, other)
    where = _where(near(affinity))
    if affinity.anti:
        words = f"a task of {affinity.service}{where}"
        remedy = f"have {affinity.service} elsewhere, or make the anti_affinity one that is not required"
        return Filter(Refusal(f"near {affinity.service}{where}", f"has {words}", f"have {words}", remedy), flags)
    words = f"no task of {affinity.service}{where}"
    remedy = f"have a task of {affinity.service} there, or make the affinity one that is not required"
    refuses = ~flags
    if affinity.service == task.service and not flags.any():
        refuses = flags  # the first of its own may be anywhere
    return Filter(Refusal(f"far {affinity.service}{where}", f"has {words}", f"have {words}", remedy), refuses)


def _near_flags(
    hosts: Hosts,
    task: objects.Task,
    affinity: objects.Affinity,
    own: ServiceTasks,
    other: Callable[[str], ServiceTasks],
) -> Flags:
    keys = near(affinity)
    if affinity.service == task.service:
        counts = own.others_by_group(task.slot, keys)
    else:
        counts = other(affinity.service).by_group(keys)
    flags: Flags = counts[hosts.groups(keys)[0]] > 0
    return flags


def _constraint(hosts: Hosts, affinity: objects.Affinity) -> Flags:
    constraint = constraints.parse(affinity.constraint)
    return hosts.accepting(constraint)


def _where(keys: tuple[str, ...]) -> str:
    if keys == (HOST_KEY,):
        return ""
    return f" at the same {' and '.join(key.removeprefix(constraints.LABEL_PREFIX) for key in keys)}"
