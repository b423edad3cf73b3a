"""Rtnetlink by hand, for what comes in thousands: routes, neighbours and FDB entries, both ways.

Formats: the kernel's `include/uapi/linux/{rtnetlink,neighbour}.h`. What is read comes back
as the same tuples that are written, so that planners compare them with set arithmetic.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from net.netlink import (
    CREATE,
    REPLACE,
    Answer,
    Request,
    attribute,
    attribute_map,
    nest,
    u32,
)
from net.pyroute2_messages import rt_type, rtnl

# Marks routes and rules as ours (an unassigned number; /etc/iproute2/rt_protos may name it).
PROTOCOL = 77

ROUTE_UNICAST: int = rt_type["unicast"]
ROUTE_UNREACHABLE: int = rt_type["unreachable"]
TABLE_MAIN = 254
NEWROUTE, DELROUTE, GETROUTE = rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE, rtnl.RTM_GETROUTE
NEWNEIGHBOUR, DELNEIGHBOUR, GETNEIGHBOUR = rtnl.RTM_NEWNEIGH, rtnl.RTM_DELNEIGH, rtnl.RTM_GETNEIGH

_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_NEIGHBOUR_PERMANENT = 0x80
_NEIGHBOUR_SELF = 0x02
_ONLINK = 4
_METRICS, _METRIC_MTU = 8, 2
_FAMILY_BRIDGE = 7
_NOWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - as a destination
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR_HEADER = struct.Struct("=BBHiHBB")


class Route(NamedTuple):
    """A route of ours; `gateway` and `source` empty: none, `device` 0: none (unreachable)."""

    table: int
    destination: str  # CIDR
    kind: int
    gateway: str
    device: int
    source: str
    mtu_bytes: int = 0  # 0: the device's

    @property
    def key(self) -> tuple[int, str]:
        return self.table, self.destination


class Neighbour(NamedTuple):
    """A permanent neighbour: `address` is reached at `mac`."""

    device: int
    address: str
    mac: str

    @property
    def key(self) -> tuple[int, str]:
        return self.device, self.address


class Forwarding(NamedTuple):
    """A static FDB entry of a VXLAN device: frames to `mac` go to the host at `address`."""

    device: int
    mac: str
    address: str

    @property
    def key(self) -> tuple[int, str]:
        return self.device, self.mac


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def pack_address(address: str) -> bytes:
    """4 bytes, or 16 of an IPv6 address."""
    return socket.inet_pton(socket.AF_INET6, address) if ":" in address else socket.inet_aton(address)


def unpack_address(packed: bytes) -> str:
    return socket.inet_ntoa(packed) if len(packed) == 4 else socket.inet_ntop(socket.AF_INET6, packed)


def family_of(address: str) -> socket.AddressFamily:
    """Of an address or a CIDR."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _route_body(item: Route) -> bytes:
    destination, length = item.destination.split("/")
    family = family_of(destination)
    # IPv6 routes have no scope.
    linked = item.kind == ROUTE_UNICAST and not item.gateway and family == socket.AF_INET
    flags = _ONLINK if item.gateway else 0
    scope = _SCOPE_LINK if linked else _SCOPE_GLOBAL
    body = _ROUTE_HEADER.pack(family, int(length), 0, 0, min(item.table, 252), PROTOCOL, scope, item.kind, flags)
    body += u32(15, item.table)
    if length != "0":
        body += attribute(1, pack_address(destination))
    if item.gateway:
        body += attribute(5, pack_address(item.gateway))
    if item.device:
        body += u32(4, item.device)
    if item.source:
        body += attribute(7, pack_address(item.source))
    if item.mtu_bytes:
        body += nest(_METRICS, u32(_METRIC_MTU, item.mtu_bytes))
    return body


def new_route(item: Route) -> Request:
    via = f" via {item.gateway}" if item.gateway else ""
    return Request(
        NEWROUTE,
        CREATE | REPLACE,
        _route_body(item),
        f"add route {item.destination}{via} in table {item.table}",
    )


def delete_route(item: Route) -> Request:
    return Request(DELROUTE, 0, _route_body(item), f"remove route {item.destination} from table {item.table}")


def list_routes(family: socket.AddressFamily) -> Request:
    """Routes of all tables with our protocol number; older kernels send others too."""
    header = _ROUTE_HEADER.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
    return Request(GETROUTE, 0, header, "list routes")


def read_route(answer: Answer) -> Route | None:
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE_HEADER.unpack_from(answer.body)
    if family not in _NOWHERE or protocol != PROTOCOL:
        return None
    found = attribute_map(answer.body, 12)
    if 15 in found:
        table = struct.unpack("=I", found[15])[0]
    destination = unpack_address(found[1]) if 1 in found else _NOWHERE[family]
    gateway = unpack_address(found[5]) if 5 in found else ""
    # IPv6 gives routes that lead nowhere the loopback as their device.
    device = struct.unpack("=I", found[4])[0] if 4 in found and kind == ROUTE_UNICAST else 0
    source = unpack_address(found[7]) if 7 in found else ""
    mtu = attribute_map(found.get(_METRICS, b"")).get(_METRIC_MTU)
    mtu_bytes = struct.unpack("=I", mtu)[0] if mtu else 0
    return Route(table, f"{destination}/{length}", kind, gateway, device, source, mtu_bytes)


def new_neighbour(item: Neighbour) -> Request:
    body = _NEIGHBOUR_HEADER.pack(family_of(item.address), 0, 0, item.device, _NEIGHBOUR_PERMANENT, 0, 0)
    body += attribute(1, pack_address(item.address)) + attribute(2, pack_mac(item.mac))
    return Request(NEWNEIGHBOUR, CREATE | REPLACE, body, f"add neighbour {item.address} at {item.mac}")


def delete_neighbour(item: Neighbour) -> Request:
    body = _NEIGHBOUR_HEADER.pack(family_of(item.address), 0, 0, item.device, 0, 0, 0)
    body += attribute(1, pack_address(item.address))
    return Request(DELNEIGHBOUR, 0, body, f"remove neighbour {item.address}")


def list_neighbours(device: int) -> Request:
    """Of every family."""
    header = _NEIGHBOUR_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0)
    return Request(GETNEIGHBOUR, 0, header + u32(8, device), "list neighbours")


def read_neighbour(answer: Answer) -> Neighbour | None:
    family, _, _, device, state, _, _ = _NEIGHBOUR_HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 12)
    if family not in _NOWHERE or not state & _NEIGHBOUR_PERMANENT or 1 not in found or 2 not in found:
        return None
    return Neighbour(device, unpack_address(found[1]), found[2].hex(":"))


def new_forwarding(item: Forwarding) -> Request:
    body = _NEIGHBOUR_HEADER.pack(_FAMILY_BRIDGE, 0, 0, item.device, _NEIGHBOUR_PERMANENT, _NEIGHBOUR_SELF, 0)
    body += attribute(1, pack_address(item.address)) + attribute(2, pack_mac(item.mac))
    asked = f"add FDB entry {item.mac} to host {item.address}"
    return Request(NEWNEIGHBOUR, CREATE | REPLACE, body, asked)


def delete_forwarding(item: Forwarding) -> Request:
    body = _NEIGHBOUR_HEADER.pack(_FAMILY_BRIDGE, 0, 0, item.device, 0, _NEIGHBOUR_SELF, 0)
    body += attribute(1, pack_address(item.address)) + attribute(2, pack_mac(item.mac))
    return Request(DELNEIGHBOUR, 0, body, f"remove FDB entry {item.mac}")


def list_forwardings(device: int) -> Request:
    header = _NEIGHBOUR_HEADER.pack(_FAMILY_BRIDGE, 0, 0, device, 0, 0, 0)
    return Request(GETNEIGHBOUR, 0, header, "list FDB entries")


def read_forwarding(answer: Answer) -> Forwarding | None:
    family, _, _, device, _, _, _ = _NEIGHBOUR_HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 12)
    if family != _FAMILY_BRIDGE or 2 not in found:
        return None
    address = unpack_address(found[1]) if len(found.get(1, b"")) in (4, 16) else ""
    return Forwarding(device, found[2].hex(":"), address)
