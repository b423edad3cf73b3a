"""Rtnetlink by hand: links, addresses, routes, neighbours, FDB entries and rules, both ways.

Formats: the kernel's `include/uapi/linux/{rtnetlink,if_link,neighbour,fib_rules}.h`. What is read comes back
as the same tuples that are written, so that planners compare them with set arithmetic.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from net.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Answer,
    Request,
    attribute,
    attribute_map,
    u32,
)

# Marks routes and rules as ours (an unassigned number; /etc/iproute2/rt_protos may name it).
PROTOCOL = 77

ROUTE_UNICAST, ROUTE_UNREACHABLE = 1, 7
TABLE_MAIN = 254
SCOPE_GLOBAL, SCOPE_LINK = 0, 253
RULE_LOOKUP, RULE_GOTO, RULE_NOP = 1, 2, 3
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGHBOUR, DELNEIGHBOUR, GETNEIGHBOUR = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

_NEIGHBOUR_PERMANENT = 0x80
_NEIGHBOUR_SELF = 0x02
_ONLINK = 4
_FAMILY_BRIDGE = 7
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR_HEADER = struct.Struct("=BBHiHBB")
_ADDRESS_HEADER = struct.Struct("=BBBBi")
_RULE_HEADER = struct.Struct("=BBBBBBBBI")


class Address(NamedTuple):
    address: str
    scope: int
    device: int


class Route(NamedTuple):
    """A route of ours; `gateway` and `source` empty: none, `device` 0: none (unreachable)."""

    table: int
    destination: str  # CIDR
    kind: int
    gateway: str
    device: int
    source: str

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


class Rule(NamedTuple):
    """A routing rule of ours; `table` 0 where it is not a look-up, `target` 0 where it is not a goto."""

    preference: int
    mark: int
    mask: int
    action: int
    table: int
    target: int


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def pack_address(address: str) -> bytes:
    return socket.inet_aton(address)


def new_address(item: Address) -> Request:
    packed = pack_address(item.address)
    body = _ADDRESS_HEADER.pack(socket.AF_INET, 32, 0, item.scope, item.device)
    body += attribute(2, packed) + attribute(1, packed)
    return Request(NEWADDR, CREATE | REPLACE, body, f"add address {item.address}")


def delete_address(item: Address) -> Request:
    body = _ADDRESS_HEADER.pack(socket.AF_INET, 32, 0, item.scope, item.device)
    return Request(DELADDR, 0, body + attribute(2, pack_address(item.address)), f"remove address {item.address}")


def list_addresses() -> Request:
    return Request(GETADDR, 0, _ADDRESS_HEADER.pack(socket.AF_INET, 0, 0, 0, 0), "list addresses")


def read_address(answer: Answer) -> Address | None:
    family, _, _, scope, device = _ADDRESS_HEADER.unpack_from(answer.body)
    local = attribute_map(answer.body, 8).get(2)
    if family != socket.AF_INET or local is None:
        return None
    return Address(socket.inet_ntoa(local), scope, device)


def _route_body(item: Route) -> bytes:
    destination, length = item.destination.split("/")
    scope = SCOPE_LINK if item.kind == ROUTE_UNICAST and not item.gateway else SCOPE_GLOBAL
    flags = _ONLINK if item.gateway else 0
    body = _ROUTE_HEADER.pack(
        socket.AF_INET, int(length), 0, 0, min(item.table, 252), PROTOCOL, scope, item.kind, flags
    )
    body += u32(15, item.table)
    if length != "0":
        body += attribute(1, pack_address(destination))
    if item.gateway:
        body += attribute(5, pack_address(item.gateway))
    if item.device:
        body += u32(4, item.device)
    if item.source:
        body += attribute(7, pack_address(item.source))
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


def list_routes() -> Request:
    """Routes of all tables with our protocol number; older kernels send others too."""
    header = _ROUTE_HEADER.pack(socket.AF_INET, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
    return Request(GETROUTE, 0, header, "list routes")


def read_route(answer: Answer) -> Route | None:
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE_HEADER.unpack_from(answer.body)
    if family != socket.AF_INET or protocol != PROTOCOL:
        return None
    found = attribute_map(answer.body, 12)
    if 15 in found:
        table = struct.unpack("=I", found[15])[0]
    destination = socket.inet_ntoa(found.get(1, b"\0\0\0\0"))
    gateway = socket.inet_ntoa(found[5]) if 5 in found else ""
    device = struct.unpack("=I", found[4])[0] if 4 in found else 0
    source = socket.inet_ntoa(found[7]) if 7 in found else ""
    return Route(table, f"{destination}/{length}", kind, gateway, device, source)


def new_neighbour(item: Neighbour) -> Request:
    body = _NEIGHBOUR_HEADER.pack(socket.AF_INET, 0, 0, item.device, _NEIGHBOUR_PERMANENT, 0, 0)
    body += attribute(1, pack_address(item.address)) + attribute(2, pack_mac(item.mac))
    return Request(NEWNEIGHBOUR, CREATE | REPLACE, body, f"add neighbour {item.address} at {item.mac}")


def delete_neighbour(item: Neighbour) -> Request:
    body = _NEIGHBOUR_HEADER.pack(socket.AF_INET, 0, 0, item.device, 0, 0, 0)
    body += attribute(1, pack_address(item.address))
    return Request(DELNEIGHBOUR, 0, body, f"remove neighbour {item.address}")


def list_neighbours(device: int) -> Request:
    header = _NEIGHBOUR_HEADER.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0)
    return Request(GETNEIGHBOUR, 0, header + u32(8, device), "list neighbours")


def read_neighbour(answer: Answer) -> Neighbour | None:
    family, _, _, device, state, _, _ = _NEIGHBOUR_HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 12)
    if family != socket.AF_INET or not state & _NEIGHBOUR_PERMANENT or 1 not in found or 2 not in found:
        return None
    return Neighbour(device, socket.inet_ntoa(found[1]), found[2].hex(":"))


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
    address = socket.inet_ntoa(found[1]) if len(found.get(1, b"")) == 4 else ""
    return Forwarding(device, found[2].hex(":"), address)


def _rule_body(item: Rule) -> bytes:
    body = _RULE_HEADER.pack(socket.AF_INET, 0, 0, 0, min(item.table, 252), 0, 0, item.action, 0)
    body += u32(6, item.preference) + attribute(21, bytes([PROTOCOL]))
    if item.mask:
        body += u32(10, item.mark) + u32(16, item.mask)
    if item.table:
        body += u32(15, item.table)
    if item.target:
        body += u32(4, item.target)
    return body


def new_rule(item: Rule) -> Request:
    asked = f"add routing rule {item.preference} for mark {item.mark:#x}"
    return Request(NEWRULE, CREATE | EXCLUSIVE, _rule_body(item), asked)


def delete_rule(item: Rule) -> Request:
    asked = f"remove routing rule {item.preference} for mark {item.mark:#x}"
    return Request(DELRULE, 0, _rule_body(item), asked)


def list_rules() -> Request:
    return Request(GETRULE, 0, _RULE_HEADER.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), "list routing rules")


def read_rule(answer: Answer) -> Rule | None:
    family, _, _, _, table, _, _, action, _ = _RULE_HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 12)
    if family != socket.AF_INET or found.get(21) != bytes([PROTOCOL]):
        return None

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "little")

    table = number(15) or table
    return Rule(number(6), number(10), number(16), action, table if action == RULE_LOOKUP else 0, number(4))
