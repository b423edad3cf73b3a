"""Names, addresses and ports that have one holder at a time: what is free, as leases for a transaction.

A lease is created in the transaction that creates or assigns its holder, and its name is unique in the
store: where two plans chose the same, the second is refused as a duplicate and planned anew. Free values
are found by asking the store for the name, so a plan costs what it hands out, not what exists. The search
begins at a place given by the holder's id, so a value that was just given back is seldom the next one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from daemon.errors import Kind, Refused
from daemon.orchestration.host_ports import HostPort
from proto import objects_pb2 as objects
from raft.store import Store

ORDINAL_MAX = 65_535  # of nodes (it is a connection mark) and of networks
FLOATING_PREFIX = "floating/"  # begins the names of their leases
RESERVED_ADDRESSES = 3  # of a host's block: network, tunnel (first host address), broadcast


class LeasePool:
    """Hands out leases over `store` for one plan; remembers what it gave, so none is given twice."""

    def __init__(self, store: Store) -> None:
        self._leases = store.table(objects.Lease)
        self._cluster = next(iter(store.table(objects.Cluster)), None)
        self._given: set[str] = set()

    def host_block(self, node_id: str) -> tuple[objects.Lease, str]:
        """A lease and the CIDR of a host's block; the first block of the pool stays unused, so that no
        host's block contains the pool's own network address. Raises Refused (EXHAUSTED)."""
        settings = self._settings()
        pool = ipaddress.ip_network(settings.host_pool)
        bits = settings.host_prefix_bits
        if not pool.prefixlen < bits <= pool.max_prefixlen - 2:
            raise Refused(f"blocks of /{bits} cannot be cut from the host pool {pool}; check the cluster's settings")
        count = 1 << (bits - pool.prefixlen)
        size = 1 << (pool.max_prefixlen - bits)
        base = int(pool.network_address)
        for index in self._after_last(objects.Lease.KIND_HOST_BLOCK, node_id, base, size, count):
            block = f"{ipaddress.ip_address(base + index * size)}/{bits}"
            lease = self._take(f"block/{block}", objects.Lease.KIND_HOST_BLOCK, node_id)
            if lease is not None:
                return lease, block
        raise Refused(
            f"no block of addresses is left for another host: all {count - 1} blocks of /{bits} in {pool} are taken; "
            "remove hosts that no longer exist with `fairway node rm NODE`",
            Kind.EXHAUSTED,
        )

    def node_ordinal(self, node_id: str) -> tuple[objects.Lease, int]:
        """A lease and a number from 1 to 65535. Raises Refused (EXHAUSTED)."""
        return self._ordinal("node", objects.Lease.KIND_NODE_ORDINAL, node_id)

    def network_ordinal(self, network_id: str) -> tuple[objects.Lease, int]:
        """A lease and a number from 1 to 65535. Raises Refused (EXHAUSTED)."""
        return self._ordinal("network", objects.Lease.KIND_NETWORK_ORDINAL, network_id)

    def vip(self, service_id: str) -> tuple[objects.Lease, str]:
        """A lease and the virtual address of a service. Raises Refused (EXHAUSTED)."""
        pool = ipaddress.ip_network(self._settings().vip_pool)
        found = self._address(pool, 1, "vip", objects.Lease.KIND_VIP, service_id)
        if found is None:
            raise Refused(
                f"no virtual address is left for another service: all of {pool} are taken; remove services that "
                "are not needed",
                Kind.EXHAUSTED,
            )
        return found

    def task_address(self, node: objects.Node, task_id: str) -> tuple[objects.Lease, str]:
        """A lease and an address of the node's block: never its network, tunnel or broadcast address.
        Raises Refused (EXHAUSTED)."""
        block = ipaddress.ip_network(node.network.block)
        found = self._address(block, 2, "address", objects.Lease.KIND_TASK_ADDRESS, task_id)
        if found is None:
            raise Refused(
                f"no address is left on {node.meta.name}: all {task_addresses(node)} of its block {block} are taken "
                "by tasks that run there or are being cleaned up",
                Kind.EXHAUSTED,
            )
        return found

    def published_port(self, port: PortLease, service_id: str) -> objects.Lease | None:
        """None where another service holds just this one; see daemon/deploying/port_leases_plan.py for what clashes."""
        return self._take(port.name, objects.Lease.KIND_PUBLISHED_PORT, service_id)

    def floating_address(self, address: str, node_id: str) -> objects.Lease | None:
        """A lease of an outside address for a node; None where one holds it."""
        return self._take(FLOATING_PREFIX + address, objects.Lease.KIND_FLOATING_ADDRESS, node_id)

    def devices(
        self, node: objects.Node, devices: Iterable[objects.AllottedDevice], task_id: str
    ) -> list[objects.Lease]:
        """Of the units that a task is to have for itself. Raises Refused where another has one of them still."""
        units = dict.fromkeys(unit for each in devices if not each.shared for unit in each.units)
        names = {unit: f"device/{node.meta.id}/{unit}" for unit in units}
        for unit, name in names.items():
            if self._leases.unique("name", name) is not None:
                raise Refused(f"device {unit} of {node.meta.name} is held by another task still")
        return [_lease(name, objects.Lease.KIND_DEVICE, task_id) for name in names.values()]

    def _settings(self) -> objects.NetworkSettings:
        if self._cluster is None:
            raise Refused("this cluster is not initialised yet: run `fairway init`", Kind.NOT_POSSIBLE)
        return self._cluster.network

    def _ordinal(self, what: str, kind: objects.Lease.Kind.ValueType, holder_id: str) -> tuple[objects.Lease, int]:
        last = 0
        for lease in self._leases.by("kind", kind):
            last = max(last, int(lease.meta.name.rpartition("/")[2]))
        for name in self._given:
            if name.startswith(f"ordinal/{what}/"):
                last = max(last, int(name.rpartition("/")[2]))
        for step in range(ORDINAL_MAX):
            number = (last + step) % ORDINAL_MAX + 1
            lease_taken = self._take(f"ordinal/{what}/{number}", kind, holder_id)
            if lease_taken is not None:
                return lease_taken, number
        raise Refused(f"no number is left for another {what}: all {ORDINAL_MAX} are taken", Kind.EXHAUSTED)

    def _after_last(
        self, kind: objects.Lease.Kind.ValueType, holder_id: str, base: int, size: int, count: int
    ) -> Iterator[int]:
        """Indexes of blocks: first those after the highest that is taken, then the others."""
        last = 0
        names = [lease.meta.name for lease in self._leases.by("kind", kind)]
        names += [name for name in self._given if name.startswith("block/")]
        for name in names:
            address = ipaddress.ip_network(name.removeprefix("block/")).network_address
            last = max(last, (int(address) - base) // size)
        for step in range(count - 1):
            yield (last + step) % (count - 1) + 1

    def _address(
        self,
        pool: ipaddress.IPv4Network | ipaddress.IPv6Network,
        first: int,
        prefix: str,
        kind: objects.Lease.Kind.ValueType,
        holder_id: str,
    ) -> tuple[objects.Lease, str] | None:
        """A free address of `pool` from its `first`-th on, without the last (IPv4's broadcast)."""
        count = pool.num_addresses - first - 1
        base = int(pool.network_address) + first
        start = int.from_bytes(hashlib.sha256(holder_id.encode()).digest()[:8]) % count if count > 0 else 0
        for step in range(max(count, 0)):
            address = str(ipaddress.ip_address(base + (start + step) % count))
            lease = self._take(f"{prefix}/{address}", kind, holder_id)
            if lease is not None:
                return lease, address
        return None

    def _take(self, name: str, kind: objects.Lease.Kind.ValueType, holder_id: str) -> objects.Lease | None:
        if name in self._given or self._leases.unique("name", name) is not None:
            return None
        self._given.add(name)
        return _lease(name, kind, holder_id)


def _lease(name: str, kind: objects.Lease.Kind.ValueType, holder_id: str) -> objects.Lease:
    lease = objects.Lease(kind=kind, holder_id=holder_id)
    lease.meta.id = lease_id(name)
    lease.meta.name = name
    lease.meta.format = 1
    return lease


def lease_id(name: str) -> str:
    """A lease's id is its name: the same value can never be leased under two ids."""
    return name


@dataclass(frozen=True)
class PortLease:
    """A published port; `service_id` where it is of host mode, which each service has for itself."""

    port: HostPort
    service_id: str = ""

    @property
    def name(self) -> str:
        """ "port/tcp/8080", "port/tcp/8080/at/192.0.2.1", "port/tcp/8080/host/SERVICE" """
        protocol, number, address = self.port
        name = f"port/{protocol}/{number}" + (f"/at/{address}" if address else "")
        return name + (f"/host/{self.service_id}" if self.service_id else "")


def port_of_lease(name: str) -> PortLease:
    """The reverse of `PortLease.name`."""
    _, protocol, number, *rest = name.split("/")
    said = dict(zip(rest[::2], rest[1::2], strict=True))
    return PortLease((protocol, int(number), said.get("at", "")), said.get("host", ""))


def task_addresses(node: objects.Node) -> int:
    """How many tasks the node's block has addresses for."""
    if not node.network.block:
        return 0
    return max(0, ipaddress.ip_network(node.network.block).num_addresses - RESERVED_ADDRESSES)


def allocate_host_block(store: Store, node_id: str) -> tuple[objects.Lease, str]:
    """The block of one new host: see `LeasePool.host_block`."""
    return LeasePool(store).host_block(node_id)


def allocate_node_ordinal(store: Store, node_id: str) -> tuple[objects.Lease, int]:
    """The number of one new host: see `LeasePool.node_ordinal`."""
    return LeasePool(store).node_ordinal(node_id)


def leases_held_by(store: Store, holder_id: str) -> list[objects.Lease]:
    """All leases to delete with their holder."""
    return store.table(objects.Lease).by("holder", holder_id)
