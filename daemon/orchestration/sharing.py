"""Who shares process ids or IPC with whom: the tasks of a service with those of the same slots of another one. Pure.

A task of the sharing service joins namespaces of the other's task as it starts, on the same host, and never changes
them: `Task.shares_with` names that task. What becomes of it when that one goes is in sharing_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daemon.orchestration.draft import Draft
from daemon.orchestration.kinds import slots_of
from daemon.orchestration.task_states import age_key, alive, assigned, ended, serving, wanted
from proto import objects_pb2 as objects


def shares(spec: objects.ServiceSpec) -> bool:
    """Its tasks run only beside those of another service."""
    return bool(owner_name(spec))


def owner_name(spec: objects.ServiceSpec) -> str:
    """Of the service whose namespaces its tasks join; empty: theirs are their own."""
    return spec.container.sharing.processes or spec.container.sharing.ipc


def shared_words(spec: objects.ServiceSpec) -> str:
    """ "processes", "IPC", "processes and IPC" """
    sharing = spec.container.sharing
    return " and ".join(filter(None, ["processes" if sharing.processes else "", "IPC" if sharing.ipc else ""]))


def owner_service(draft: Draft, task: objects.Task) -> objects.Service | None:
    """The service whose tasks it shares with, if that is there."""
    stored = draft.store.table(objects.Service).unique("name", (task.meta.tenant, task.app, owner_name(task.spec)))
    return draft.get(objects.Service, stored.meta.id) if stored is not None else None


def to_join(draft: Draft, task: objects.Task, nodes: Mapping[str, objects.Node]) -> objects.Task | str:
    """The running task whose namespaces a pending one is to join; or why there is none as yet, in words."""
    name, shared = owner_name(task.spec), shared_words(task.spec)
    owner = owner_service(draft, task)
    if owner is None or owner.removing:
        return f"there is no service {name}, whose {shared} it shares"
    tasks = draft.tasks_of(owner.meta.id)
    found = newest_running(each for each in tasks if each.slot == task.slot and each.node_id in nodes)
    if found is not None:
        return found
    if task.slot not in slots_of(owner, nodes, tasks):
        return f"there is no {name}.{task.slot}, whose {shared} it shares"
    return f"{name}.{task.slot}, whose {shared} it shares, does not run yet"


def newest_running(tasks: Iterator[objects.Task]) -> objects.Task | None:
    """Of those of one slot; one that is ready rather than one that is not."""
    running = [each for each in tasks if alive(each) and each.status.state == objects.TASK_STATE_RUNNING]
    return max(running, key=lambda each: (serving(each), each.generation, *age_key(each)), default=None)


def left(draft: Draft, task: objects.Task) -> str:
    """Why the namespaces that a task has joined are not to be stayed in, in words; empty where they are."""
    if not task.shares_with:
        return ""
    owner = draft.get(objects.Task, task.shares_with)
    name = f"{owner_name(task.spec)}.{task.slot}, whose {shared_words(task.spec)} it shares"
    if owner is None:
        return f"{name}, is gone"
    if ended(owner):
        return f"{name}, has ended"
    if not wanted(owner):
        return f"{name}, is stopped" + (f": {owner.desired_message}" if owner.desired_message else "")
    return ""


def sharing_services(draft: Draft, owner: objects.Service) -> Iterator[objects.Service]:
    """Those whose tasks share with the tasks of `owner`."""
    for stored in draft.store.table(objects.Service).by("app", (owner.meta.tenant, owner.app)):
        service = draft.get(objects.Service, stored.meta.id)
        if service is not None and not service.removing and owner_name(service.spec) == owner.meta.name:
            yield service


def sharers_of(draft: Draft, task: objects.Task) -> Iterator[tuple[objects.Service, objects.Task]]:
    """The tasks that end with this one, or had better, each with its service."""
    owner = draft.get(objects.Service, task.service_id)
    if owner is None or not assigned(task):
        return
    for service in sharing_services(draft, owner):
        for other in draft.tasks_of(service.meta.id):
            if other.shares_with == task.meta.id and alive(other):
                yield service, other
