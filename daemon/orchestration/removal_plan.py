"""Taking services and apps away: tasks first, then what they held, then themselves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from daemon.orchestration.draft import Draft
from daemon.orchestration.external_parts import external_ids
from daemon.orchestration.kinds import is_ordered
from daemon.orchestration.leases import leases_held_by
from daemon.orchestration.rollout_course_plan import tracked
from daemon.orchestration.task_plan import lose_tasks_of_lost_hosts, stop_task
from daemon.orchestration.task_states import assigned, ended, gone
from proto import objects_pb2 as objects


def remove_service(draft: Draft, service: objects.Service, nodes: Mapping[str, objects.Node]) -> None:
    """One step: stops its tasks; when none runs any more, deletes them, its leases and itself.

    Tasks that were lost with a host do not hold it up: they stay, without a service, until the host is back
    and has cleaned up, or is removed."""
    lose_tasks_of_lost_hosts(draft, draft.tasks_of(service.meta.id), nodes)
    running = False
    tasks = draft.tasks_of(service.meta.id)
    lowest = 0
    if is_ordered(service.spec):
        lowest = max((task.slot for task in tasks if assigned(task) and not _over(draft, task)), default=0)
    for task in tasks:
        if task.slot >= lowest or not assigned(task):
            stop_task(draft, task, "its service is removed")
        running = running or not _over(draft, task)
    if running:
        return
    for task in draft.tasks_of(service.meta.id):
        if gone(task):
            draft.delete(task)
    for lease in leases_held_by(draft.store, service.meta.id):
        draft.delete(lease)
    draft.delete(service)


def remove_orphans(draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
    """Tasks whose service is gone."""
    for task in draft.store.table(objects.Task):
        if draft.full:
            return
        if draft.store.get(objects.Service, task.service_id) is not None:
            continue
        lose_tasks_of_lost_hosts(draft, [task], nodes)
        stop_task(draft, task, "its service is removed")
        latest = draft.get(objects.Task, task.meta.id)
        if latest is not None and ended(latest) and gone(latest):
            draft.delete(latest)


def remove_empty_apps(draft: Draft) -> None:
    """Apps without a service, with their networks, when no volume of them is being removed any more."""
    used: dict[str, str] | None = None
    for app in draft.store.table(objects.App):
        key = (app.meta.tenant, app.meta.name)
        services = draft.store.table(objects.Service).by("app", key)
        if any(draft.get(objects.Service, service.meta.id) is not None for service in services):
            continue
        if used is None:
            used = external_ids(draft.store, lambda service: draft.get(objects.Service, service.meta.id))
        if _parts_used(draft, key, used):
            continue  # an app that uses them keeps this one
        for network in draft.store.table(objects.Network).by("app", key):
            for lease in leases_held_by(draft.store, network.meta.id):
                draft.delete(lease)
            draft.delete(network)
        if not any(_stays(draft, volume) for volume in draft.store.table(objects.Volume).by("app", key)):
            draft.delete(app)


def _stays(draft: Draft, volume: objects.Volume) -> bool:
    """Whether a volume is being removed still (volume_removal_plan.py)."""
    return volume.removing and draft.get(objects.Volume, volume.meta.id) is not None


def _parts_used(draft: Draft, app: tuple[str, str], used: Collection[str]) -> bool:
    """Whether a network of the app, or a volume that is being removed, is in use elsewhere."""
    networks = draft.store.table(objects.Network).by("app", app)
    volumes = draft.store.table(objects.Volume).by("app", app)
    return any(network.meta.id in used for network in networks) or any(
        volume.removing and volume.meta.id in used for volume in volumes
    )


def remove_unused_networks(draft: Draft) -> None:
    """Networks that no service names, nor goes back to should its rollout fail, and that no task is on any more."""
    used: set[str] | None = None

    def latest(service: objects.Service) -> objects.Service | None:
        return draft.get(objects.Service, service.meta.id)  # it may have gone back in this very pass

    for network in draft.store.table(objects.Network):
        key = (network.meta.tenant, network.app)
        services = [
            now for one in draft.store.table(objects.Service).by("app", key) if (now := latest(one)) is not None
        ]
        if not services or any(_names_own(spec, network.meta.name) for one in services for spec in _versions(one)):
            continue
        if used is None:
            used = {one for task in draft.tasks() if not gone(task) for one in task.networks}
            used.update(external_ids(draft.store, latest))
        if network.meta.id not in used:
            for lease in leases_held_by(draft.store, network.meta.id):
                draft.delete(lease)
            draft.delete(network)


def _versions(service: objects.Service) -> list[objects.ServiceSpec]:
    """What the service is, and may be soon without anybody's word."""
    return [service.spec, *(revision.spec for revision in service.revisions if tracked(service))]


def _names_own(spec: objects.ServiceSpec, network: str) -> bool:
    return network in spec.networks and network not in spec.external_networks


def _over(draft: Draft, task: objects.Task) -> bool:
    latest = draft.get(objects.Task, task.meta.id)
    if latest is None:
        return True
    if latest.status.state == objects.TASK_STATE_LOST:
        return True
    return ended(latest) and gone(latest)
