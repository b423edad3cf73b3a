"""Links, routes, neighbours and rules that a host needs for the others; pure."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from net.address_messages import SCOPE_GLOBAL, SCOPE_LINK, Address
from net.addresses import GATEWAY_ADDRESS, ipv6_block_of, ipv6_of
from net.chains_plan import MARK_MASK, host_mark
from net.model import DesiredNetwork, Host
from net.route_messages import (
    ROUTE_UNICAST,
    ROUTE_UNREACHABLE,
    TABLE_MAIN,
    Forwarding,
    Neighbour,
    Route,
)
from net.rule_messages import GOTO, LOOKUP, NOP, Rule
from net.tunnel_messages import Link
from net.wireguard_plan import remote_address, routes_of

# Outer Ethernet-less: IP, UDP and VXLAN headers, and the inner Ethernet header (RFC 7348, section 5).
TUNNEL_OVERHEAD_BYTES, TUNNEL_OVERHEAD_IPV6_BYTES = 50, 70
IPV6_MTU_BYTES_MIN = 1280  # RFC 8200, section 5; smaller ones of routes the kernel does not take seriously
RETURN_TABLE_FIRST = 0x46570000  # "FW": the table of host N is this plus N
PREFERENCE_SKIP, PREFERENCE_RETURN, PREFERENCE_END = 9000, 9001, 9002


@dataclass
class Overlay:
    """Everything but the device itself; sets compare with what the kernel lists."""

    addresses: set[Address] = field(default_factory=set)
    routes: set[Route] = field(default_factory=set)
    neighbours: set[Neighbour] = field(default_factory=set)
    forwardings: set[Forwarding] = field(default_factory=set)
    rules: set[Rule] = field(default_factory=set)


_NO_PATH_MTUS: Mapping[str, int] = MappingProxyType({})


class Keyed(Protocol):
    @property
    def key(self) -> tuple[int, str]: ...


K = TypeVar("K", bound=Keyed)


class _Family(NamedTuple):
    """How one of the two families says what a host needs."""

    number: int
    everywhere: str
    address: Callable[[str], str]  # of an IPv4 address of ours
    block: Callable[[str], str]  # of a block or pool


def _families(ipv6_prefix: str) -> list[_Family]:
    families = [_Family(socket.AF_INET, "0.0.0.0/0", str, str)]
    if ipv6_prefix:
        address = partial(ipv6_of, ipv6_prefix)
        families.append(_Family(socket.AF_INET6, "::/0", address, partial(ipv6_block_of, ipv6_prefix)))
    return families


def overlay_of(
    desired: DesiredNetwork, device: int, wireguard: int = 0, path_mtus: Mapping[str, int] = _NO_PATH_MTUS
) -> Overlay:
    """What the VXLAN device number `device` needs; `wireguard`: the device below it, where hosts encrypt.

    `path_mtus`: by node id, of hosts that no packet of the device's full size reaches."""
    overlay = Overlay(addresses={Address(GATEWAY_ADDRESS, SCOPE_LINK, device)})
    others = [host for host in desired.hosts if host.node_id != desired.local.node_id]
    for family in _families(desired.config.ipv6_prefix):
        _add_local(overlay, desired, family, device)
        source = family.address(desired.local.tunnel_address)
        for host in others:
            _add_host(overlay, host, source, family, device, path_mtus.get(host.node_id, 0))
    overlay.forwardings = {Forwarding(device, host.tunnel_mac, remote_address(desired, host)) for host in others}
    overlay.routes |= routes_of(desired, wireguard)
    return overlay


def _add_local(overlay: Overlay, desired: DesiredNetwork, family: _Family, device: int) -> None:
    config, local = desired.config, desired.local
    source = family.address(local.tunnel_address)
    overlay.addresses.add(Address(source, SCOPE_GLOBAL, device))
    overlay.routes |= {
        Route(TABLE_MAIN, family.block(config.vip_pool), ROUTE_UNICAST, "", device, source),
        Route(TABLE_MAIN, family.block(local.block), ROUTE_UNREACHABLE, "", 0, ""),
        Route(TABLE_MAIN, family.block(config.host_pool), ROUTE_UNREACHABLE, "", 0, ""),
    }
    # One rule lets packets without our mark skip the list of hosts.
    overlay.rules |= {
        Rule(PREFERENCE_SKIP, 0, MARK_MASK, GOTO, 0, PREFERENCE_END, family.number),
        Rule(PREFERENCE_END, 0, 0, NOP, 0, 0, family.number),
    }


def _add_host(overlay: Overlay, host: Host, source: str, family: _Family, device: int, path_mtu: int) -> None:
    tunnel, table = family.address(host.tunnel_address), RETURN_TABLE_FIRST + host.ordinal
    mtu = max(path_mtu, IPV6_MTU_BYTES_MIN) if path_mtu and family.number == socket.AF_INET6 else path_mtu
    overlay.routes.add(Route(TABLE_MAIN, family.block(host.block), ROUTE_UNICAST, tunnel, device, source, mtu))
    overlay.routes.add(Route(table, family.everywhere, ROUTE_UNICAST, tunnel, device, "", mtu))
    overlay.neighbours.add(Neighbour(device, tunnel, host.tunnel_mac))
    mark = host_mark(host.ordinal)
    overlay.rules.add(Rule(PREFERENCE_RETURN, mark, MARK_MASK, LOOKUP, table, 0, family.number))


def mtu_bytes(configured: int, underlay: int, address: str) -> int:
    """Of the VXLAN device and of every task; `address` is the host's own on the underlay."""
    overhead = TUNNEL_OVERHEAD_IPV6_BYTES if ":" in address else TUNNEL_OVERHEAD_BYTES
    return configured or max(576, underlay - overhead)


def tunnel_differences(
    link: Link, vxlan_id: int, port: int, local: str, mac: str, settings: dict[int, int], mtu: int
) -> tuple[list[str], list[str]]:
    """(what can only be mended by making the device anew, what can be set), in words."""
    anew = []
    if link.kind != "vxlan":
        anew.append(f"it is of kind {link.kind or 'unknown'}")
    elif (link.vxlan_id, link.vxlan_port) != (vxlan_id, port) or not may_change_local(link.vxlan_local, local):
        anew.append(f"it has id {link.vxlan_id}, port {link.vxlan_port}, local address {link.vxlan_local}")
    elif link.vxlan_learning:
        anew.append("it learns addresses")
    set_only = []
    if not link.up:
        set_only.append("it is down")
    if not anew and link.vxlan_local != local:
        set_only.append(f"its local address is {link.vxlan_local or 'any'}")
    if link.mac != mac:
        set_only.append(f"its MAC is {link.mac}")
    if link.mtu_bytes != mtu:
        set_only.append(f"its MTU is {link.mtu_bytes}")
    for number, value in settings.items():
        if link.settings.get(number) != value:
            set_only.append(f"IPv4 setting {number} is {link.settings.get(number)}")
    return anew, set_only


def may_change_local(present: str, wanted: str) -> bool:
    """A device stays with one family for good; of one whose address is empty (any) it is not known which."""
    return not present or not wanted or (":" in present) == (":" in wanted)


def replacing(desired: set[K], observed: Iterable[K]) -> tuple[list[K], list[K]]:
    """(to remove, to write); what is replaced under the same key needs no removal."""
    present = set(observed)
    write = desired - present
    keys = {item.key for item in write}
    return [item for item in present - desired if item.key not in keys], list(write)
