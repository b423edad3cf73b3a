"""Volumes that are to be removed with their data: when nobody has one any more, its host deletes the data and says so,
and then the volume is forgotten. Pure.

A host that is down does it when it is back. Until then the volume keeps its name, and its app is there.
"""

from __future__ import annotations

from daemon.orchestration.draft import Draft
from daemon.orchestration.task_states import gone, named_volumes
from proto import objects_pb2 as objects

Name = tuple[str, str, str]  # tenant, app, name within the app


def remove_volumes(draft: Draft) -> None:
    """One step of it for all volumes; that the data is gone is reported (daemon/leader/report_plan.py)."""
    removing = [volume for volume in draft.store.table(objects.Volume) if volume.removing]
    if not removing:
        return
    used, external = _used(draft)
    names = {_name(volume) for volume in removing}
    for volume in removing:
        if draft.full:
            return
        name = _name(volume)
        if volume.meta.id in external or name in used or _template(name) in used:
            continue
        if volume.node_id:
            if not volume.discard:
                draft.edit(volume).discard = True
        elif not any(other != name and _template(other) == name for other in names):
            draft.delete(volume)  # what slots had of it is gone, so the name is free for a new one


def _used(draft: Draft) -> tuple[set[Name], set[str]]:
    """Names of volumes that services and tasks have of their own apps, and ids of those that are other apps'."""
    used: set[Name] = set()
    external: set[str] = set()
    stored = draft.store.table(objects.Service)
    services = [service for each in stored if (service := draft.get(objects.Service, each.meta.id)) is not None]
    users: list[objects.Service | objects.Task] = [*services]
    users += [task for task in draft.store.table(objects.Task) if not gone(task)]
    for user in users:
        external.update(user.spec.external_volumes.values())
        for name in named_volumes(user.spec):
            if name not in user.spec.external_volumes:
                used.add((user.meta.tenant, user.app, name))
    return used, external


def _name(volume: objects.Volume) -> Name:
    return volume.meta.tenant, volume.app, volume.meta.name


def _template(name: Name) -> Name:
    """The volume that a slot's own one was made after: `data` of `data.2`."""
    tenant, app, own = name
    return tenant, app, own.rpartition(".")[0]
