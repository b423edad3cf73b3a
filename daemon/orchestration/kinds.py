"""What the kind of a service says of its tasks: how many, which slots, which hosts, whose volumes. Pure.

A service that follows hosts (global, global-job) has a slot for each host that it runs on, and the slot's number is the
host's ordinal: so a slot is always about the same host, and needs no note of which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from daemon.orchestration import constraints
from daemon.orchestration.task_states import alive, assigned, wanted
from proto import objects_pb2 as objects

_JOBS = (objects.SERVICE_KIND_JOB, objects.SERVICE_KIND_GLOBAL_JOB)
_FOLLOWING = (objects.SERVICE_KIND_GLOBAL, objects.SERVICE_KIND_GLOBAL_JOB)


def is_job(spec: objects.ServiceSpec) -> bool:
    """Its tasks run to completion."""
    return spec.kind in _JOBS


def follows_hosts(spec: objects.ServiceSpec) -> bool:
    """One task a host, rather than a number of them."""
    return spec.kind in _FOLLOWING


def needs_kinds(spec: objects.ServiceSpec) -> bool:
    """A leader that knows only replicated services would do other than what it says."""
    return spec.kind != objects.SERVICE_KIND_REPLICATED or spec.HasField("stateful")


def has_own_volumes(spec: objects.ServiceSpec) -> bool:
    """Each slot has named volumes of its own."""
    return follows_hosts(spec) or spec.HasField("stateful")


def is_ordered(spec: objects.ServiceSpec) -> bool:
    """Its slots start one after the other, and stop in the opposite order."""
    return spec.HasField("stateful") and not spec.stateful.unordered


def slots_of(
    service: objects.Service, nodes: Mapping[str, objects.Node], tasks: Sequence[objects.Task] = ()
) -> Collection[int]:
    """The slots that are to have a task, of a service with these tasks."""
    if not follows_hosts(service.spec):
        return range(1, service.spec.replicas + 1)
    there = {task.slot for task in tasks if alive(task) and assigned(task)}
    needed = constraints.parse_all(service.spec.constraints)
    return {
        node.network.ordinal
        for node in nodes.values()
        if constraints.first_refusal(needed, node) is None and _may_have(node, node.network.ordinal in there)
    }


def serving_wanted(service: objects.Service, tasks: Iterable[objects.Task]) -> int:
    """How many tasks of a service are to run all the time, of a service with these tasks."""
    if service.removing or is_job(service.spec):
        return 0
    if follows_hosts(service.spec):
        return len({task.slot for task in tasks if wanted(task)})
    return service.spec.replicas


def host_of_slot(slot: int, nodes: Mapping[str, objects.Node]) -> str:
    """Id of the host that a slot of a service that follows hosts is for; empty where that is gone."""
    return next((node.meta.id for node in nodes.values() if node.network.ordinal == slot), "")


def left_out(service: objects.Service, slot: int, nodes: Mapping[str, objects.Node]) -> str:
    """Why a slot is to have no task any more, in words."""
    if not follows_hosts(service.spec):
        return f"scaled down to {service.spec.replicas}"
    for node in nodes.values():
        if node.network.ordinal != slot:
            continue
        why = constraints.first_refusal(constraints.parse_all(service.spec.constraints), node)
        if why is not None:
            return f"{node.meta.name} {why}"
        if node.availability == objects.AVAILABILITY_DRAINING:
            return f"drain of {node.meta.name}"
        return f"host {node.meta.name} is down"
    return "its host was removed from the cluster"


def _may_have(node: objects.Node, has_one: bool) -> bool:
    """A host that is cordoned, or not fit for tasks for now, keeps the one that it has and gets none."""
    if node.state == objects.NODE_STATE_DOWN or node.availability == objects.AVAILABILITY_DRAINING:
        return False
    active = node.state == objects.NODE_STATE_READY and node.availability != objects.AVAILABILITY_CORDONED
    return has_one or (active and not node.description.missing_features)
