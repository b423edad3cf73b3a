"""Answers to operators' questions, from the store. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from daemon import lookup
from daemon.errors import Refused
from daemon.leader.endpoints_plan import endpoint_of
from daemon.orchestration.budget_plan import bounded, drain_waits
from daemon.orchestration.external_parts import volume_of
from daemon.orchestration.kinds import is_job, serving_wanted
from daemon.orchestration.task_states import ended, named_volumes, succeeded
from net.addresses import ipv6_of
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store


def service_view(store: Store, service: objects.Service) -> control.ServiceView:
    """A service with what becomes of it."""
    view = control.ServiceView(service=service)
    reasons = set()
    for task in store.table(objects.Task).by("service", service.meta.id):
        if task.desired != objects.DESIRED_STATE_RUNNING:
            continue
        if task.status.state == objects.TASK_STATE_RUNNING:
            view.running += 1
            view.ready += task.status.ready
            view.updated += task.status.ready and task.generation == service.generation
        elif task.status.message and not succeeded(task):
            reasons.add(task.status.message)
        endpoint = endpoint_of(store, task)
        if endpoint is not None:
            view.endpoints.append(endpoint)
    if bounded(service.spec):
        nodes = {node.meta.id: node for node in store.table(objects.Node)}
        tasks = store.table(objects.Task).by("service", service.meta.id)
        reasons.update(words for _, words in drain_waits(service, tasks, nodes))
    view.pending_reasons.extend(sorted(reasons))
    prefix = next((cluster.network.ipv6_prefix for cluster in store.table(objects.Cluster)), "")
    for address in filter(None, (service.vip, *(endpoint.address for endpoint in view.endpoints))):
        if prefix:
            view.ipv6_addresses[address] = ipv6_of(prefix, address)
    for name in named_volumes(service.spec):
        volume = volume_of(store, service.meta.tenant, service.app, service.spec, name)
        node = store.get(objects.Node, volume.node_id) if volume is not None and volume.node_id else None
        if node is not None:
            view.volume_hosts[name] = node.meta.name
    return view


def without_history(service: objects.Service) -> objects.Service:
    """The service without its earlier versions, which can be many times as long."""
    if not service.revisions:
        return service
    found = objects.Service()
    found.CopyFrom(service)
    found.ClearField("revisions")
    return found


def list_tasks(store: Store, request: control.ListTasksRequest) -> control.ListTasksReply:
    """Tasks and services that a request asks for, oldest slot first. Where a task is named in place of a service: that
    task."""
    services, named = _asked_for(store, request)
    ids = {service.meta.id for service in services}
    node_id = lookup.find_node(store, request.node).meta.id if request.node else ""
    by_app = bool(request.app or request.service)
    tasks = [
        task
        for task in store.table(objects.Task)
        if (not by_app or task.service_id in ids or (not request.service and task.app == request.app))
        and (not node_id or task.node_id == node_id)
        and (request.all or not _is_history(task))
        and (named is None or task.meta.id in named)
    ]
    tasks.sort(key=lambda task: (task.app, task.service, task.slot, task.meta.created_unix_ms))
    node_ids = {task.node_id for task in tasks if task.node_id}
    nodes = (store.get(objects.Node, node_id) for node_id in sorted(node_ids))
    return control.ListTasksReply(
        tasks=tasks,
        services=[without_history(service) for service in services],
        revision=store.revision,
        nodes=[node for node in nodes if node is not None],
    )


def _asked_for(store: Store, request: control.ListTasksRequest) -> tuple[list[objects.Service], set[str] | None]:
    """Services, and where single tasks of them are asked for, their ids. Raises Refused."""
    if not (request.service or request.app):
        return list(store.table(objects.Service)), None
    try:
        return lookup.find_services(store, request.service, request.app), None
    except Refused:
        target = f"{request.app}/{request.service}" if request.app else request.service
        tasks = lookup.find_tasks(store, target)
        ids = {task.service_id for task in tasks}
        return [each for each in store.table(objects.Service) if each.meta.id in ids], {task.meta.id for task in tasks}


def _is_history(task: objects.Task) -> bool:
    """It has ended and something else has taken its place, or nothing will."""
    return ended(task) and task.desired == objects.DESIRED_STATE_STOPPED


def node_view(store: Store, node: objects.Node, leader_id: str, heard_ms_ago: int) -> control.NodeView:
    """A node with its load."""
    view = control.NodeView(node=node, leader=node.meta.id == leader_id, last_heard_ms=heard_ms_ago)
    for task in store.table(objects.Task).by("node", node.meta.id):
        if ended(task):
            continue
        view.task_count += 1
        view.cpu_reserved_millis += task.spec.resources.cpu_reserved_millis
        view.memory_reserved_bytes += task.spec.resources.memory_reserved_bytes
    return view


def wanted_and_running(tasks: Iterable[objects.Task], services: Iterable[objects.Service]) -> tuple[int, int]:
    """(tasks that are to run all the time, tasks of those services that run)."""
    by_service: dict[str, list[objects.Task]] = {}
    for task in tasks:
        if task.desired == objects.DESIRED_STATE_RUNNING:
            by_service.setdefault(task.service_id, []).append(task)
    wanted = running = 0
    for service in services:
        its = by_service.get(service.meta.id, [])
        wanted += serving_wanted(service, its)
        if not is_job(service.spec):
            running += sum(task.status.state == objects.TASK_STATE_RUNNING for task in its)
    return wanted, running


def public_cluster(cluster: objects.Cluster) -> objects.Cluster:
    """The cluster without what only voters may see."""
    public = objects.Cluster()
    public.CopyFrom(cluster)
    public.ClearField("ca_private_key_sealed")
    return public
