"""Published ports of the services of one deploy: each belongs to one service of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Set

from daemon.errors import Kind, Refused
from daemon.orchestration.leases import LeasePool, leases_held_by, port_lease_name
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


class PortLeases:
    """Collects what services want to publish, then settles all of it at once, so that within a deploy a port
    can pass from one service to another."""

    def __init__(self, store: Store, leases: LeasePool) -> None:
        self._store = store
        self._leases = leases
        self._wanted: dict[str, tuple[objects.Service, objects.PortSpec]] = {}  # by lease name
        self._services: list[objects.Service] = []

    def want(self, service: objects.Service) -> None:
        """The service as it will be."""
        self._services.append(service)
        for port in service.spec.ports:
            if port.published:
                self._wanted[port_lease_name(port.protocol, port.published)] = (service, port)

    def settle(self, builder: TransactionBuilder, leaving: Set[str]) -> None:
        """Adds the changes of leases. `leaving`: ids of services that are removed by this deploy.

        Raises Refused (CONFLICT), naming the service that holds a port."""
        deployed = {service.meta.id for service in self._services}
        table = self._store.table(objects.Lease)
        for name, (service, port) in sorted(self._wanted.items()):
            before = table.unique("name", name)
            if before is None:
                lease = self._leases.published_port(port.protocol, port.published, service.meta.id)
                assert lease is not None  # a port is wanted once per deploy, and nobody holds it
                builder.create(lease)
            elif before.holder_id != service.meta.id:
                if before.holder_id not in deployed and not self._lets_go(before.holder_id, leaving):
                    raise self._taken(service, port, before.holder_id)
                passed = objects.Lease()
                passed.CopyFrom(before)
                passed.holder_id = service.meta.id
                builder.update(passed)
        for service in self._services:
            for lease in leases_held_by(self._store, service.meta.id):
                if lease.kind == objects.Lease.KIND_PUBLISHED_PORT and lease.meta.name not in self._wanted:
                    builder.delete(lease)

    def _lets_go(self, holder_id: str, leaving: Set[str]) -> bool:
        holder = self._store.get(objects.Service, holder_id)
        return holder is None or holder.removing or holder_id in leaving

    def _taken(self, service: objects.Service, port: objects.PortSpec, holder_id: str) -> Refused:
        holder = self._store.get(objects.Service, holder_id)
        name = f"{holder.app}/{holder.meta.name}" if holder is not None else "another service"
        return Refused(
            f"service {service.meta.name} cannot publish port {port.published}/{port.protocol}: it is published by "
            f"service {name} already; choose another port, or remove that service first",
            Kind.CONFLICT,
        )
