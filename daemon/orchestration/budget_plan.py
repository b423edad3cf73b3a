"""Disruption budgets: how many of a service's slots keep a ready task whatever the cluster does to its tasks. Pure.

A budget bounds steps that take a ready task away before another is there: those of a drain, of preemption and of
rebalancing. It does not bound updates, which have settings of their own, nor what fails: but a slot that a failure
has left without a ready task counts, so that nothing more is taken away meanwhile. A slot is available while one of its
tasks is ready; a step that starts the replacement first takes nothing away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from daemon.orchestration import constraints
from daemon.orchestration.draft import Draft
from daemon.orchestration.kinds import follows_hosts, slots_of
from daemon.orchestration.sharing import sharers_of
from daemon.orchestration.task_states import alive, assigned, named_volumes, serving
from proto import objects_pb2 as objects

MILLION = 1_000_000


@dataclass(frozen=True)
class Standing:
    """Of a service, in slots: those that are to have a task, that have a ready one, and that must keep one."""

    wanted: int
    available: int
    required: int

    @property
    def room(self) -> int:
        """How many more may lose theirs; below zero where failures have taken too many already."""
        return self.available - self.required


def bounded(spec: objects.ServiceSpec) -> bool:
    """It has a budget."""
    return spec.disruption_budget.WhichOneof("bound") is not None


def required_slots(budget: objects.DisruptionBudget, wanted: int) -> int:
    """How many of so many slots must keep a ready task; shares are rounded up, as in Kubernetes."""
    match budget.WhichOneof("bound"):
        case "unavailable_max":
            return max(wanted - budget.unavailable_max, 0)
        case "unavailable_max_millionths":
            return max(wanted - _share(budget.unavailable_max_millionths, wanted), 0)
        case "available_min":
            return budget.available_min
        case "available_min_millionths":
            return _share(budget.available_min_millionths, wanted)
    return 0


def standing_of(service: objects.Service, tasks: Sequence[objects.Task], nodes: Mapping[str, objects.Node]) -> Standing:
    """Of a service with these tasks. Without a budget nothing is required."""
    slots = _slots(service, tasks, nodes)
    ready = {task.slot for task in tasks if serving(task) and task.slot in slots}
    return Standing(len(slots), len(ready), required_slots(service.spec.disruption_budget, len(slots)))


def refusal(
    service: objects.Service, tasks: Sequence[objects.Task], nodes: Mapping[str, objects.Node], task: objects.Task
) -> str:
    """Why `task`, one of `tasks`, must not be stopped now before another is ready in its slot; empty where it may."""
    if not bounded(service.spec) or not serving(task):
        return ""
    if any(other.slot == task.slot and other.meta.id != task.meta.id and serving(other) for other in tasks):
        return ""
    if task.slot not in _slots(service, tasks, nodes):
        return ""
    standing = standing_of(service, tasks, nodes)
    if standing.room > 0:
        return ""
    return (
        f"the disruption budget of {service.app}/{service.meta.name} is {budget_text(service.spec.disruption_budget)}, "
        f"{standing.available} of {standing.wanted} tasks are ready, and {standing.required} must stay so"
    )


def may_disrupt(draft: Draft, task: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    """Whether a planner may stop the task as the plan stands so far, before another is ready in its slot."""
    return not draft_refusal(draft, task, nodes)


def draft_refusal(draft: Draft, task: objects.Task, nodes: Mapping[str, objects.Node]) -> str:
    """As `refusal`, of a task as the plan leaves it so far, and of those that end with it (sharing.py)."""
    service = draft.get(objects.Service, task.service_id)
    if service is None or service.removing:
        return ""
    for one, each in ((service, task), *sharers_of(draft, task)):
        if bounded(one.spec) and (why := refusal(one, draft.tasks_of(one.meta.id), nodes, each)):
            return why
    return ""


def drain_waits(
    service: objects.Service, tasks: Sequence[objects.Task], nodes: Mapping[str, objects.Node]
) -> Iterator[tuple[objects.Task, str]]:
    """Tasks that drains leave where they are for the service's budget, each with the reason in words."""
    if not bounded(service.spec):
        return
    waiting = {task.slot for task in tasks if alive(task) and not assigned(task)}
    for task in tasks:
        node = nodes.get(task.node_id)
        if node is None or node.availability != objects.AVAILABILITY_DRAINING:
            continue
        taken_first = task.slot in waiting or stops_first(task.spec) or follows_hosts(task.spec)
        if taken_first and (why := refusal(service, tasks, nodes, task)):
            yield task, f"{task.meta.name} stays on {node.meta.name} as yet: {why}"


def stops_first(spec: objects.ServiceSpec) -> bool:
    """Its tasks keep data, or are to be the only ones of their slots: each ends before the next one starts."""
    return bool(named_volumes(spec)) or spec.HasField("stateful")


def budget_text(budget: objects.DisruptionBudget) -> str:
    """As it stands in a file: "max_unavailable 25%"; empty where there is none."""
    match budget.WhichOneof("bound"):
        case "unavailable_max":
            return f"max_unavailable {budget.unavailable_max}"
        case "unavailable_max_millionths":
            return f"max_unavailable {budget.unavailable_max_millionths / 10_000:g}%"
        case "available_min":
            return f"min_available {budget.available_min}"
        case "available_min_millionths":
            return f"min_available {budget.available_min_millionths / 10_000:g}%"
    return ""


def _slots(
    service: objects.Service, tasks: Sequence[objects.Task], nodes: Mapping[str, objects.Node]
) -> Collection[int]:
    """Those that are to have a task. Of a service that follows hosts also those of hosts that are down or being
    drained: to their clients a task is missing, for whatever reason."""
    slots = slots_of(service, nodes, tasks)
    if not follows_hosts(service.spec):
        return slots
    needed = constraints.parse_all(service.spec.constraints)
    missing = {
        node.network.ordinal
        for node in nodes.values()
        if (node.state == objects.NODE_STATE_DOWN or node.availability == objects.AVAILABILITY_DRAINING)
        and constraints.first_refusal(needed, node) is None
    }
    return missing.union(slots)


def _share(millionths: int, of: int) -> int:
    return -(-millionths * of // MILLION)
