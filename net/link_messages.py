"""Rtnetlink by hand, for what every container asks for: its veth pair, settings of links, look-ups.

Formats: the kernel's `include/uapi/linux/{if_link,rtnetlink,ip}.h`.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from net.netlink import (
    CREATE,
    ECHO,
    EXCLUSIVE,
    Answer,
    Request,
    attribute,
    attribute_map,
    nest,
    text,
    u8,
    u32,
)
from net.pyroute2_messages import rtnl
from net.route_messages import pack_mac

NEWLINK, DELLINK, GETLINK = rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK, rtnl.RTM_GETLINK
UP = 1

# Numbers of per-device IPv4 settings, in the order of /proc/sys/net/ipv4/conf (uapi/linux/ip.h).
CONF_FORWARDING, CONF_SEND_REDIRECTS, CONF_REVERSE_PATH_FILTER = 1, 6, 8
CONF_ACCEPT_LOCAL, CONF_ROUTE_LOCALNET = 23, 26

_HEADER = struct.Struct("=BBHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 26, 28, 29
_INFO_KIND, _INFO_DATA = 1, 2
_INET6_GENERATE_NONE = nest(socket.AF_INET6, u8(8, 1))
_SKIP_STATISTICS = u32(_IFLA_EXT_MASK, 1 << 3)


class LinkBrief(NamedTuple):
    number: int
    name: str
    up: bool
    kind: str


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
    # Asked to echo, the kernel (6.2 and later) names us in the notification: see net/outside_changes_plan.py.
    return Request(DELLINK, ECHO, _HEADER.pack(0, 0, 0, index, 0, 0), f"remove link {name}")


def get_link(name: str) -> Request:
    body = _HEADER.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + _SKIP_STATISTICS
    return Request(GETLINK, 0, body, f"look up link {name}")


def get_link_by_index(index: int) -> Request:
    return Request(GETLINK, 0, _HEADER.pack(0, 0, 0, index, 0, 0) + _SKIP_STATISTICS, f"look up link number {index}")


def list_links() -> Request:
    return Request(GETLINK, 0, _HEADER.pack(0, 0, 0, 0, 0, 0) + _SKIP_STATISTICS, "list links")


def read_link(answer: Answer) -> LinkBrief:
    """What a look-up of a task's interface needs: a sixth of the time of `tunnel_messages.read_link`."""
    _, _, _, number, flags, _ = _HEADER.unpack_from(answer.body)
    found = attribute_map(answer.body, 16)
    information = attribute_map(found.get(_IFLA_LINKINFO, b""))
    return LinkBrief(number, _string(found.get(_IFLA_IFNAME)), bool(flags & UP), _string(information.get(_INFO_KIND)))


def _string(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")
