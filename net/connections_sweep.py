"""Finds connections to addresses of tasks that no task has any more, a bounded number of entries at a time.

An entry that outlives its task takes the packets of an old client to whoever gets the address next. When an endpoint
goes its entries are deleted at once (net/connections.py); what was missed then, because the daemon was down say, is
found here. Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable

from net.addresses import ipv6_of
from net.connections import Connections
from net.differences import CONNTRACK, Difference
from net.errors import KernelRefused
from net.model import DesiredNetwork
from net.netlink import PROTOCOL_NETFILTER, Answer, Netlink, Request, attribute_map
from net.route_messages import unpack_address

SWEEP_EVERY_SECONDS = 30.0
ENTRIES_MAX = 50_000  # where the table holds more, a sweep would take too long: it is left alone
_GET = (1 << 8) | 1
_HEADER = struct.Struct(">BBH")
_TUPLE_REPLY, _TUPLE_IP, _IPV4_SOURCE, _IPV6_SOURCE = 2, 1, 1, 3


class ConnectionsSweep:
    """An address counts as nobody's when two sweeps in a row find it so: tasks come and go meanwhile."""

    def __init__(self) -> None:
        self._suspects: set[str] = set()

    def sweep(self, desired: DesiredNetwork, entry_count: int) -> list[str]:
        """Blocking; forgets what belongs to nobody and says so, in words. `entry_count`: of the kernel's table."""
        if entry_count > ENTRIES_MAX:
            return []
        try:
            with Netlink(PROTOCOL_NETFILTER) as netlink:
                answerers = set()
                for family in (socket.AF_INET, socket.AF_INET6):
                    request = Request(_GET, 0, _HEADER.pack(family, 0, 0), "list connections")
                    answerers |= answering(netlink.dump(request))
        except KernelRefused:
            return []
        orphans = nobodys(answerers, desired)
        certain = orphans & self._suspects
        self._suspects = orphans - certain
        if certain:
            connections = Connections()
            try:
                prefix = desired.config.ipv6_prefix
                of_both = {*certain, *(ipv6_of(prefix, address) for address in certain if prefix)}
                connections.forget([], sorted(of_both))
            finally:
                connections.close()
        return [Difference(CONNTRACK, f"connections to {address}, which no task has") for address in sorted(certain)]


def answering(answers: Iterable[Answer]) -> set[str]:
    """The addresses that answer the connections of a dump."""
    found = set()
    for answer in answers:
        reply = attribute_map(answer.body, 4).get(_TUPLE_REPLY)
        if reply is not None:
            addresses = attribute_map(attribute_map(reply).get(_TUPLE_IP, b""))
            source = addresses.get(_IPV4_SOURCE) or addresses.get(_IPV6_SOURCE)
            if source is not None:
                found.add(source)
    return {unpack_address(each) for each in found}


def nobodys(addresses: Collection[str], desired: DesiredNetwork) -> set[str]:
    """Those that are in a host's block and of no task or host, IPv6 ones as the IPv4 ones beside them; pure."""
    known = {endpoint.address for endpoint in desired.endpoints}
    known.update(task.address for task in desired.tasks)
    known.update(host.tunnel_address for host in (desired.local, *desired.hosts))
    blocks = [ipaddress.IPv4Network(host.block) for host in (desired.local, *desired.hosts)]
    pool = ipaddress.IPv4Network(desired.config.host_pool)
    prefix = ipaddress.IPv6Network(desired.config.ipv6_prefix) if desired.config.ipv6_prefix else None
    found = set()
    for each in addresses:
        parsed = ipaddress.ip_address(each)
        if isinstance(parsed, ipaddress.IPv6Address):
            if prefix is None or parsed not in prefix:
                continue
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        ours = str(parsed)
        if ours not in known and parsed in pool and any(parsed in block for block in blocks):
            found.add(ours)
    return found
