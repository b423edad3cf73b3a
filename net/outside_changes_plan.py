"""Which netlink notifications mean that someone else touched what is ours; pure."""

from __future__ import annotations

import socket
import struct
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from net.address_messages import SCOPE_GLOBAL
from net.addresses import tunnel_interface, wireguard_interfaces
from net.netlink import attribute_map
from net.pyroute2_messages import rtnl
from net.route_messages import PROTOCOL

_LINKS = (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK)
_ROUTES = (rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE)
_RULES = (rtnl.RTM_NEWRULE, rtnl.RTM_DELRULE)
_ADDRESSES = (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR)
_UP = 1
_HEADER = struct.Struct("=IHHII")
_TABLE_NAME = 1  # the first attribute of every object of nftables (uapi/linux/netfilter/nf_tables.h)


@dataclass(frozen=True)
class Ours:
    """What a notification is compared with; `tunnel_number` 0: there is no tunnel now."""

    prefix: str
    tunnel_number: int
    ports: Container[int]  # of this process's netlink sockets: what they asked for is no news
    wireguard_numbers: tuple[int, ...] = ()  # of the devices below the tunnel that are there now

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tunnel and of what its packets go into."""
        return tunnel_interface(self.prefix), *wireguard_interfaces(self.prefix)

    def has(self, number: int) -> bool:
        return number == self.tunnel_number or number in self.wireguard_numbers


def may_concern(kind: int, data: bytes, offset: int, ours: Ours) -> bool:
    """By the fixed part of the message at `offset` alone: other programs' routes and neighbours can be many."""
    if len(data) < offset + 24:
        return False
    (port,) = struct.unpack_from("=I", data, offset + 12)
    if port in ours.ports:
        return False
    if kind == rtnl.RTM_NEWLINK:  # each start of a task brings some: only a tunnel that went down is news
        number, flags = struct.unpack_from("=iI", data, offset + 20)
        return ours.has(number) and not flags & _UP
    if kind in _LINKS or kind in _RULES:
        return True
    if kind in _ROUTES:
        return data[offset + 16] in (socket.AF_INET, socket.AF_INET6) and data[offset + 21] == PROTOCOL
    # Addresses and neighbours both have their device's number here.
    (device,) = struct.unpack_from("=i", data, offset + 20)
    # An address of the host's own may be what the tunnel stands on, or have come back.
    return ours.has(device) or (kind in _ADDRESSES and data[offset + 19] == SCOPE_GLOBAL)


def concerns(message: Any, ours: Ours) -> bool:
    """Of a decoded message that passed `may_concern`."""
    kind = message["header"]["type"]
    if kind in _RULES:
        return bool(message.get_attr("FRA_PROTOCOL") == PROTOCOL)
    if kind not in _LINKS:
        return True
    name = message.get_attr("IFLA_IFNAME") or ""
    if kind == rtnl.RTM_DELLINK:
        return name in ours.names or name.startswith(f"{ours.prefix}t")
    # It does not say by whom: what we set and mere changes of the carrier look the same, but are never a "down".
    return name in ours.names and not message["flags"] & _UP


def concerns_table(data: bytes, table: str, ports: Container[int]) -> bool:
    """Whether a datagram about an nftables transaction of someone else names our table."""
    wanted = table.encode() + b"\0"
    offset = 0
    while offset + _HEADER.size + 4 <= len(data):
        length, _, _, _, port = _HEADER.unpack_from(data, offset)
        if port in ports or length < _HEADER.size + 4:
            return False
        found = attribute_map(data[offset + _HEADER.size + 4 : offset + length])
        if found.get(_TABLE_NAME) == wanted:
            return True
        offset += (length + 3) & ~3
    return False
