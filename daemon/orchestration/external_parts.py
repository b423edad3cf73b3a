"""Networks and volumes that a service names: its own app's, and those of other apps that it calls external. Pure.

An app's part has a name in its tenant too, by which others call it: `APP_NAME`, or what its file says as `name`. A
deploy settles that name to an id, which the service's spec keeps from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proto import objects_pb2 as objects
from raft.store import Store

Part = objects.Network | objects.Volume


def network_of(store: Store, tenant: str, app: str, spec: objects.ServiceSpec, name: str, /) -> objects.Network | None:
    """The network that a service of `app` calls `name`; None where there is none."""
    if external := spec.external_networks.get(name):
        return store.get(objects.Network, external)
    return store.table(objects.Network).unique("name", (tenant, app, name))


def volume_of(store: Store, tenant: str, app: str, spec: objects.ServiceSpec, name: str, /) -> objects.Volume | None:
    """The same of a volume."""
    if external := spec.external_volumes.get(name):
        return store.get(objects.Volume, external)
    return store.table(objects.Volume).unique("name", (tenant, app, name))


def called(part: Part) -> str:
    """How files of other apps call it."""
    return part.shared_name or f"{part.app}_{part.meta.name}"


def external_ids(
    store: Store, latest: Callable[[objects.Service], objects.Service | None] = lambda service: service
) -> dict[str, str]:
    """Of what services use of other apps: id of the part -> "APP/SERVICE" of one that uses it. `latest`: a service as
    it is now; None: it is gone."""
    found: dict[str, str] = {}
    for stored in store.table(objects.Service):
        service = latest(stored)
        if service is not None:
            for identifier in _ids(service.spec):
                found.setdefault(identifier, f"{service.app}/{service.meta.name}")
    return found


def _ids(spec: objects.ServiceSpec) -> Iterable[str]:
    yield from spec.external_networks.values()
    yield from spec.external_volumes.values()
