"""What people's words name: nodes, apps, services and tasks by name, id or the beginning of an id. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from daemon.errors import Kind, Refused
from proto import objects_pb2 as objects
from raft.store import Store


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
    hint = did_you_mean(text, (node.meta.name for node in nodes))
    raise Refused(f"there is no node {text!r}{hint}; `fairway node ls` lists them", Kind.NOT_FOUND)


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
        hint = did_you_mean(target, _names((s.app, s.meta.name) for s in services))
        raise Refused(
            f"there is no service {target!r}{where}{hint}; `fairway show` and `fairway ls` list what runs",
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
    hint = did_you_mean(name, (app.meta.name for app in store.table(objects.App)))
    raise Refused(f"there is no app {name!r}{hint}; `fairway ls` lists them", Kind.NOT_FOUND)


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
        known = {(task.app, name) for task in store.table(objects.Task) for name in (task.meta.name, task.service)}
        hint = did_you_mean(target, _names(known))
        raise Refused(
            f"there is no task or service {target!r}{hint}; `fairway ps` lists them", Kind.NOT_FOUND
        ) from None
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


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """What may have been meant, to follow the name; empty where nothing is near."""
    near = difflib.get_close_matches(text, sorted(set(names)), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _names(known: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Of (app, name), both ways in which they are written."""
    for app, name in known:
        yield name
        yield f"{app}/{name}"
