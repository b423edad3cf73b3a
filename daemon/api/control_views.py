"""Answers to operators' questions, from the store. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import endpoint_of
from daemon.orchestration.task_states import named_volumes
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store

ENDED = (objects.TASK_STATE_EXITED, objects.TASK_STATE_FAILED, objects.TASK_STATE_LOST)
DEFAULT_TENANT = "default"


def find_node(store: Store, text: str) -> objects.Node:
    """A node by name, id or unique beginning of its id; Refused where none or several match."""
    nodes = list(store.table(objects.Node))
    for node in nodes:
        if text in (node.meta.name, node.meta.id):
            return node
    matches = [node for node in nodes if text and node.meta.id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Refused(f"{text!r} is the beginning of {len(matches)} nodes' ids; write more of it")
    raise Refused(f"there is no node {text!r}; `fairway node ls` lists them", Kind.NOT_FOUND)


def find_services(store: Store, target: str, app: str = "") -> list[objects.Service]:
    """Services by NAME, APP/NAME or id; all of `app` (or of the cluster) where `target` is empty."""
    services = [s for s in store.table(objects.Service) if not app or s.app == app]
    if not target:
        return services
    wanted_app, slash, name = target.rpartition("/")
    found = [
        service
        for service in services
        if service.meta.id == target or (service.meta.name == name and (not slash or service.app == wanted_app))
    ]
    if not found:
        where = f" in app {app!r}" if app else ""
        raise Refused(
            f"there is no service {target!r}{where}; `fairway show` and `fairway ls` list what runs",
            Kind.NOT_FOUND,
        )
    return found


def find_service(store: Store, target: str) -> objects.Service:
    """The one service that `target` names."""
    found = find_services(store, target)
    if len(found) > 1:
        apps = ", ".join(sorted(f"{service.app}/{service.meta.name}" for service in found))
        raise Refused(f"{target!r} is the name of several services ({apps}); write APP/SERVICE")
    return found[0]


def find_app(store: Store, name: str) -> objects.App:
    """An app by name or id."""
    for app in store.table(objects.App):
        if name in (app.meta.name, app.meta.id):
            return app
    raise Refused(f"there is no app {name!r}; `fairway ls` lists them", Kind.NOT_FOUND)


def find_tasks(store: Store, target: str) -> list[objects.Task]:
    """Tasks by id, unique beginning of an id, SERVICE.SLOT or APP/SERVICE.SLOT; else those of a service."""
    wanted_app, slash, name = target.rpartition("/")
    tasks = [task for task in store.table(objects.Task) if not slash or task.app == wanted_app]
    exact = [task for task in tasks if target == task.meta.id]
    if exact:
        return exact
    named = [task for task in tasks if task.meta.name == name]
    if named:
        return sorted(named, key=lambda task: task.meta.created_unix_ms)
    starting = [task for task in tasks if len(target) >= 4 and task.meta.id.startswith(target)]
    if len(starting) == 1:
        return starting
    try:
        services = find_services(store, target)
    except Refused:
        raise Refused(f"there is no task or service {target!r}; `fairway ps` lists them", Kind.NOT_FOUND) from None
    ids = {service.meta.id for service in services}
    return sorted((task for task in tasks if task.service_id in ids), key=lambda task: task.meta.created_unix_ms)


def running_task(store: Store, target: str) -> objects.Task:
    """The task that a process can be started in: the named one, or the first running of a service."""
    tasks = find_tasks(store, target)
    for task in tasks:
        if task.status.state == objects.TASK_STATE_RUNNING and task.node_id:
            return task
    states = ", ".join(sorted({objects.TaskState.Name(task.status.state)[11:].lower() for task in tasks}))
    raise Refused(f"no task of {target!r} is running (they are: {states or 'none'})", Kind.NOT_POSSIBLE)


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
        elif task.status.message:
            reasons.add(task.status.message)
        endpoint = endpoint_of(store, task)
        if endpoint is not None:
            view.endpoints.append(endpoint)
    view.pending_reasons.extend(sorted(reasons))
    for name in named_volumes(service.spec):
        volume = store.table(objects.Volume).unique("name", (service.meta.tenant, service.app, name))
        node = store.get(objects.Node, volume.node_id) if volume is not None and volume.node_id else None
        if node is not None:
            view.volume_hosts[name] = node.meta.name
    return view


def list_tasks(store: Store, request: control.ListTasksRequest) -> control.ListTasksReply:
    """Tasks and services that a request asks for, oldest slot first."""
    services = (
        find_services(store, request.service, request.app)
        if request.service or request.app
        else list(store.table(objects.Service))
    )
    ids = {service.meta.id for service in services}
    node_id = find_node(store, request.node).meta.id if request.node else ""
    by_app = bool(request.app or request.service)
    tasks = [
        task
        for task in store.table(objects.Task)
        if (not by_app or task.service_id in ids or (not request.service and task.app == request.app))
        and (not node_id or task.node_id == node_id)
        and (request.all or not _is_history(task))
    ]
    tasks.sort(key=lambda task: (task.app, task.service, task.slot, task.meta.created_unix_ms))
    node_ids = {task.node_id for task in tasks if task.node_id}
    nodes = (store.get(objects.Node, node_id) for node_id in sorted(node_ids))
    return control.ListTasksReply(
        tasks=tasks,
        services=services,
        revision=store.revision,
        nodes=[node for node in nodes if node is not None],
    )


def _is_history(task: objects.Task) -> bool:
    """It has ended and something else has taken its place, or nothing will."""
    return task.status.state in ENDED and task.desired == objects.DESIRED_STATE_STOPPED


def node_view(store: Store, node: objects.Node, leader_id: str, heard_ms_ago: int) -> control.NodeView:
    """A node with its load."""
    view = control.NodeView(node=node, leader=node.meta.id == leader_id, last_heard_ms=heard_ms_ago)
    for task in store.table(objects.Task).by("node", node.meta.id):
        if task.status.state in ENDED:
            continue
        view.task_count += 1
        view.cpu_reserved_millis += task.spec.resources.cpu_reserved_millis
        view.memory_reserved_bytes += task.spec.resources.memory_reserved_bytes
    return view


def wanted_and_running(tasks: Iterable[objects.Task], services: Iterable[objects.Service]) -> tuple[int, int]:
    """(tasks wanted, tasks running)."""
    wanted = sum(service.spec.replicas for service in services if not service.removing)
    running = sum(
        task.status.state == objects.TASK_STATE_RUNNING and task.desired == objects.DESIRED_STATE_RUNNING
        for task in tasks
    )
    return wanted, running


def public_cluster(cluster: objects.Cluster) -> objects.Cluster:
    """The cluster without what only voters may see."""
    public = objects.Cluster()
    public.CopyFrom(cluster)
    public.ClearField("ca_private_key_sealed")
    return public
