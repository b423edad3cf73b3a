"""Published ports of the services of one deploy: each belongs to one service of the cluster. Pure.

A port that is published at one address of hosts, or of host mode, has a lease of its own name; which of them clash
with others is decided here, before the transaction.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from google.protobuf.message import Message

from daemon.errors import Kind, Refused
from daemon.orchestration.host_ports import HostPort, clash, host_port, port_text
from daemon.orchestration.leases import LeasePool, PortLease, leases_held_by, port_of_lease
from daemon.orchestration.quota_plan import check_ports, ports_of_tenant, quota_of
from proto import objects_pb2 as objects
from raft.store import Store


class Changes(Protocol):
    """What takes changes of stored objects: a transaction in the making, or a pass of the orchestrator."""

    def create(self, stored: Message) -> object: ...
    def update(self, stored: Message) -> object: ...
    def delete(self, stored: Message) -> object: ...


class PortLeases:
    """Collects what services want to publish, then settles all of it at once, so that within a deploy a port
    can pass from one service to another."""

    def __init__(self, store: Store, leases: LeasePool) -> None:
        self._store = store
        self._leases = leases
        self._wanted: dict[str, tuple[objects.Service, PortLease]] = {}  # by lease name
        self._services: list[objects.Service] = []

    def want(self, service: objects.Service) -> None:
        """The service as it will be."""
        self._services.append(service)
        for port in service.spec.ports:
            if port.published:
                straight_to = service.meta.id if port.mode == objects.PortSpec.MODE_HOST else ""
                lease = PortLease(host_port(port), straight_to)
                self._wanted[lease.name] = (service, lease)

    def settle(self, builder: Changes, leaving: Set[str]) -> None:
        """Adds the changes of leases. `leaving`: ids of services that are removed by this deploy.

        Raises Refused: CONFLICT, naming the service that holds a port; EXHAUSTED, where the tenant's quota is."""
        deployed = {service.meta.id for service in self._services}
        table = self._store.table(objects.Lease)
        held = self._held_by_others(deployed, leaving) if self._wanted else {}
        for name, (service, wanted) in sorted(self._wanted.items()):
            for holder_id, other in held.get(wanted.port[:2], ()):
                both_host = wanted.service_id and other.service_id
                if not both_host and clash(wanted.port, other.port):
                    raise self._taken(service, wanted.port, holder_id)
            before = table.unique("name", name)
            if before is None:
                lease = self._leases.published_port(wanted, service.meta.id)
                assert lease is not None  # a port is wanted once per deploy, and nobody holds it
                builder.create(lease)
            elif before.holder_id != service.meta.id:
                passed = objects.Lease()
                passed.CopyFrom(before)
                passed.holder_id = service.meta.id
                builder.update(passed)
        released = set()
        for service in self._services:
            for lease in leases_held_by(self._store, service.meta.id):
                if lease.kind == objects.Lease.KIND_PUBLISHED_PORT and lease.meta.name not in self._wanted:
                    builder.delete(lease)
                    released.add(lease.meta.name)
        tenant = self._services[0].meta.tenant if self._services else ""
        if quota_of(self._store, tenant).HasField("published_ports"):
            published = ports_of_tenant(self._store, tenant)
            check_ports(self._store, tenant, len(published), len((published | self._wanted.keys()) - released))

    def _held_by_others(
        self, deployed: Set[str], leaving: Set[str]
    ) -> dict[tuple[str, int], list[tuple[str, PortLease]]]:
        """(holder, lease) of services that go on as they are, by protocol and number."""
        wanted = {lease.port[:2] for _, lease in self._wanted.values()}
        held: dict[tuple[str, int], list[tuple[str, PortLease]]] = {}
        for lease in self._store.table(objects.Lease).by("kind", objects.Lease.KIND_PUBLISHED_PORT):
            port = port_of_lease(lease.meta.name)
            if port.port[:2] not in wanted or lease.holder_id in deployed or self._lets_go(lease.holder_id, leaving):
                continue
            held.setdefault(port.port[:2], []).append((lease.holder_id, port))
        return held

    def _lets_go(self, holder_id: str, leaving: Set[str]) -> bool:
        holder = self._store.get(objects.Service, holder_id)
        return holder is None or holder.removing or holder_id in leaving

    def _taken(self, service: objects.Service, port: HostPort, holder_id: str) -> Refused:
        holder = self._store.get(objects.Service, holder_id)
        name = f"{holder.app}/{holder.meta.name}" if holder is not None else "another service"
        return Refused(
            f"service {service.meta.name} cannot publish port {port_text(port)}: it is published by "
            f"service {name} already; choose another port, or remove that service first",
            Kind.CONFLICT,
        )


def settle_vip(store: Store, leases: LeasePool, changes: Changes, service: objects.Service) -> None:
    """Gives the service, as it will be, a virtual address where it is to have one, and takes it where not."""
    wanted = bool(service.spec.networks) and service.spec.endpoint_mode == objects.ENDPOINT_MODE_VIP
    if wanted and not service.vip:
        lease, service.vip = leases.vip(service.meta.id)
        changes.create(lease)
    elif not wanted and service.vip:
        lease_before = store.table(objects.Lease).unique("name", f"vip/{service.vip}")
        if lease_before is not None:
            changes.delete(lease_before)
        service.vip = ""
