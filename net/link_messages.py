"""Rtnetlink by hand: the links we make (VXLAN device, veth pairs) and what is read of links.

Formats: the kernel's `include/uapi/linux/{if_link,rtnetlink,ip}.h`.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from net.netlink import (
    CREATE,
    EXCLUSIVE,
    Answer,
    Request,
    attribute,
    attribute_map,
    nest,
    text,
    u8,
    u16_network,
    u32,
)
from net.route_messages import pack_address, pack_mac

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
UP = 1

# Numbers of per-device IPv4 settings, in the order of /proc/sys/net/ipv4/conf (uapi/linux/ip.h).
CONF_FORWARDING, CONF_SEND_REDIRECTS, CONF_REVERSE_PATH_FILTER = 1, 6, 8
CONF_ACCEPT_LOCAL, CONF_ROUTE_LOCALNET = 23, 26

_HEADER = struct.Struct("=BBHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 26, 28, 29
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 4, 7, 15
_INET6_GENERATE_NONE = nest(socket.AF_INET6, u8(8, 1))
_SKIP_STATISTICS = u32(_IFLA_EXT_MASK, 1 << 3)


class Link(NamedTuple):
    """A link as it is; VXLAN fields are 0 or empty where it is of another kind."""

    number: int
    name: str
    up: bool
    mac: str
    mtu_bytes: int
    kind: str
    vxlan_id: int
    vxlan_port: int
    vxlan_local: str
    vxlan_learning: bool
    settings: dict[int, int]  # per-device IPv4 settings by CONF_ number


def new_vxlan(name: str, vxlan_id: int, port: int, local: str, mac: str, mtu_bytes: int) -> Request:
    """A VXLAN device without learning and without a default destination: unknown frames go nowhere."""
    data = (
        u32(_VXLAN_ID, vxlan_id)
        + attribute(_VXLAN_LOCAL, pack_address(local))
        + u8(_VXLAN_LEARNING, 0)
        + u16_network(_VXLAN_PORT, port)
    )
    body = _HEADER.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, pack_mac(mac))
    body += u32(_IFLA_MTU, mtu_bytes)
    body += nest(_IFLA_LINKINFO, text(_INFO_KIND, "vxlan"), nest(_INFO_DATA, data))
    return Request(NEWLINK, CREATE | EXCLUSIVE, body, f"make VXLAN device {name} (id {vxlan_id}, UDP port {port})")


def new_veth(name: str, mac: str, peer_mac: str, mtu_bytes: int, peer_namespace: int) -> Request:
    """A veth pair whose other end is `eth0` in the network namespace of a file descriptor."""
    peer = (
        _HEADER.pack(0, 0, 0, 0, 0, 0)
        + text(_IFLA_IFNAME, "eth0")
        + attribute(_IFLA_ADDRESS, pack_mac(peer_mac))
        + u32(_IFLA_MTU, mtu_bytes)
        + u32(_IFLA_NET_NS_FD, peer_namespace)
    )
    body = _HEADER.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, pack_mac(mac))
    body += u32(_IFLA_MTU, mtu_bytes)
    body += nest(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), nest(_INFO_DATA, attribute(1, peer)))
    return Request(NEWLINK, CREATE | EXCLUSIVE, body, f"make veth pair {name}")


def set_link(
    index: int,
    name: str,
    *,
    up: bool = True,
    mac: str = "",
    mtu_bytes: int = 0,
    alias: str = "",
    settings: dict[int, int] | None = None,
) -> Request:
    """Changes a link; `settings` are per-device IPv4 settings by CONF_ number."""
    flags = UP if up else 0
    body = _HEADER.pack(0, 0, 0, index, flags, UP)
    if mac:
        body += attribute(_IFLA_ADDRESS, pack_mac(mac))
    if mtu_bytes:
        body += u32(_IFLA_MTU, mtu_bytes)
    if alias:
        body += attribute(_IFLA_IFALIAS, alias.encode()[:255])
    specification = b""
    if settings:
        specification += nest(socket.AF_INET, nest(1, *(u32(number, value) for number, value in settings.items())))
    if specification:
        body += nest(_IFLA_AF_SPEC, specification)
    return Request(NEWLINK, 0, body, f"set up {name}")


def without_ipv6_address(number: int, name: str) -> Request:
    """Keeps a link from making itself a link-local IPv6 address; to be asked before it goes up."""
    body = _HEADER.pack(0, 0, 0, number, 0, 0) + nest(_IFLA_AF_SPEC, _INET6_GENERATE_NONE)
    return Request(NEWLINK, 0, body, f"keep {name} without an IPv6 address")


def delete_link(index: int, name: str) -> Request:
    return Request(DELLINK, 0, _HEADER.pack(0, 0, 0, index, 0, 0), f"remove link {name}")


def get_link(name: str) -> Request:
    body = _HEADER.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + _SKIP_STATISTICS
    return Request(GETLINK, 0, body, f"look up link {name}")


def get_link_by_index(index: int) -> Request:
    return Request(GETLINK, 0, _HEADER.pack(0, 0, 0, index, 0, 0) + _SKIP_STATISTICS, f"look up link number {index}")


def list_links() -> Request:
    return Request(GETLINK, 0, _HEADER.pack(0, 0, 0, 0, 0, 0) + _SKIP_STATISTICS, "list links")


def read_link(answer: Answer) -> Link:
    _, _, _, number, flags, _ = _HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 16)
    information = attribute_map(found.get(_IFLA_LINKINFO, b""))
    kind = information.get(_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    data = attribute_map(information.get(_INFO_DATA, b"")) if kind == "vxlan" else {}
    local = data.get(_VXLAN_LOCAL, b"")
    return Link(
        number=number,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & UP),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=int.from_bytes(found.get(_IFLA_MTU, b""), "little"),
        kind=kind,
        vxlan_id=int.from_bytes(data.get(_VXLAN_ID, b""), "little"),
        vxlan_port=int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
        vxlan_local=socket.inet_ntoa(local) if len(local) == 4 else "",
        vxlan_learning=data.get(_VXLAN_LEARNING, b"\0") != b"\0",
        settings=_read_settings(found.get(_IFLA_AF_SPEC, b"")),
    )


def _read_settings(specification: bytes) -> dict[int, int]:
    """Per-device IPv4 settings: the kernel sends them as an array of int32 from number 1 on."""
    conf = attribute_map(attribute_map(specification).get(socket.AF_INET, b"")).get(1, b"")
    return {number + 1: value for number, (value,) in enumerate(struct.iter_unpack("=i", conf[: len(conf) & ~3]))}
