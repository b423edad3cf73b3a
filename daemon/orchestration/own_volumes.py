"""Named volumes of which each slot has one of its own: `data` of slot 2 is the volume `data.2`. Pure.

The task's frozen spec names its own volume, so hosts need not know of this. Of a service that follows hosts the slot is
the host's, so each host has its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.errors import Kind, Refused
from daemon.orchestration import external_parts
from daemon.orchestration.draft import Draft
from daemon.orchestration.kinds import follows_hosts, has_own_volumes
from daemon.orchestration.quota_plan import own_volume_refusal
from proto import objects_pb2 as objects


def spec_of_slot(spec: objects.ServiceSpec, slot: int) -> objects.ServiceSpec:
    """The service's spec as the tasks of a slot have it."""
    if not has_own_volumes(spec) or not any(_named(mount) for mount in spec.container.mounts):
        return spec
    own = objects.ServiceSpec()
    own.CopyFrom(spec)
    for mount in own.container.mounts:
        if _named(mount):
            mount.source = f"{mount.source}.{slot}"
    return own


def volume_of(draft: Draft, task: objects.Task, name: str, nodes: Mapping[str, objects.Node]) -> objects.Volume | None:
    """A volume that a task names; one of a slot's own is made when the slot's first task needs it. None: its app has
    none of this name. Raises Refused (EXHAUSTED) where the tenant may have no more."""
    table = draft.store.table(objects.Volume)
    stored = external_parts.volume_of(draft.store, task.meta.tenant, task.app, task.spec, name)
    volume = draft.get(objects.Volume, stored.meta.id) if stored is not None else None
    if volume is None:
        template_name, _, number = name.rpartition(".")
        if not has_own_volumes(task.spec) or number != str(task.slot):
            return None
        template = table.unique("name", (task.meta.tenant, task.app, template_name))
        if template is None:
            return None
        if why := own_volume_refusal(draft, task.meta.tenant):
            raise Refused(why, Kind.EXHAUSTED)
        meta = objects.Meta(id=draft.new_id(), name=name, tenant=template.meta.tenant, labels=template.meta.labels)
        meta.created_unix_ms, meta.format = draft.now_unix_ms, template.meta.format
        return draft.create(objects.Volume(meta=meta, app=template.app, driver_options=template.driver_options))
    if volume.node_id and volume.node_id not in nodes and follows_hosts(task.spec):
        draft.edit(volume).node_id = ""  # the host is gone with what it held, and another has its ordinal
    return draft.get(objects.Volume, volume.meta.id)


def _named(mount: objects.Mount) -> bool:
    return mount.kind == objects.Mount.KIND_VOLUME and bool(mount.source)
