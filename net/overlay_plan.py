"""Links, routes, neighbours and rules that a host needs for the others; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from net.address_messages import SCOPE_GLOBAL, SCOPE_LINK, Address
from net.addresses import GATEWAY_ADDRESS
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

TUNNEL_OVERHEAD_BYTES = 50
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


class Keyed(Protocol):
    @property
    def key(self) -> tuple[int, str]: ...


K = TypeVar("K", bound=Keyed)


def overlay_of(desired: DesiredNetwork, device: int) -> Overlay:
    """What the VXLAN device number `device` needs."""
    local = desired.local
    overlay = Overlay()
    overlay.addresses = {
        Address(local.tunnel_address, SCOPE_GLOBAL, device),
        Address(GATEWAY_ADDRESS, SCOPE_LINK, device),
    }
    overlay.routes = {
        Route(TABLE_MAIN, desired.config.vip_pool, ROUTE_UNICAST, "", device, local.tunnel_address),
        Route(TABLE_MAIN, local.block, ROUTE_UNREACHABLE, "", 0, ""),
        Route(TABLE_MAIN, desired.config.host_pool, ROUTE_UNREACHABLE, "", 0, ""),
    }
    # One rule lets packets without our mark skip the list of hosts.
    overlay.rules = {
        Rule(PREFERENCE_SKIP, 0, MARK_MASK, GOTO, 0, PREFERENCE_END),
        Rule(PREFERENCE_END, 0, 0, NOP, 0, 0),
    }
    for host in desired.hosts:
        if host.node_id != local.node_id:
            _add_host(overlay, host, local, device)
    return overlay


def _add_host(overlay: Overlay, host: Host, local: Host, device: int) -> None:
    tunnel, table = host.tunnel_address, RETURN_TABLE_FIRST + host.ordinal
    overlay.routes.add(Route(TABLE_MAIN, host.block, ROUTE_UNICAST, tunnel, device, local.tunnel_address))
    overlay.routes.add(Route(table, "0.0.0.0/0", ROUTE_UNICAST, tunnel, device, ""))
    overlay.neighbours.add(Neighbour(device, tunnel, host.tunnel_mac))
    overlay.forwardings.add(Forwarding(device, host.tunnel_mac, host.address))
    overlay.rules.add(Rule(PREFERENCE_RETURN, host_mark(host.ordinal), MARK_MASK, LOOKUP, table, 0))


def mtu_bytes(configured: int, underlay: int) -> int:
    """Of the VXLAN device and of every task."""
    return configured or max(576, underlay - TUNNEL_OVERHEAD_BYTES)


def tunnel_differences(
    link: Link, vxlan_id: int, port: int, local: str, mac: str, settings: dict[int, int], mtu: int
) -> tuple[list[str], list[str]]:
    """(what can only be mended by making the device anew, what can be set), in words."""
    anew = []
    if link.kind != "vxlan":
        anew.append(f"it is of kind {link.kind or 'unknown'}")
    elif (link.vxlan_id, link.vxlan_port, link.vxlan_local) != (vxlan_id, port, local):
        anew.append(f"it has id {link.vxlan_id}, port {link.vxlan_port}, local address {link.vxlan_local}")
    elif link.vxlan_learning:
        anew.append("it learns addresses")
    set_only = []
    if not link.up:
        set_only.append("it is down")
    if link.mac != mac:
        set_only.append(f"its MAC is {link.mac}")
    if link.mtu_bytes != mtu:
        set_only.append(f"its MTU is {link.mtu_bytes}")
    for number, value in settings.items():
        if link.settings.get(number) != value:
            set_only.append(f"IPv4 setting {number} is {link.settings.get(number)}")
    return anew, set_only


def replacing(desired: set[K], observed: Iterable[K]) -> tuple[list[K], list[K]]:
    """(to remove, to write); what is replaced under the same key needs no removal."""
    present = set(observed)
    write = desired - present
    keys = {item.key for item in write}
    return [item for item in present - desired if item.key not in keys], list(write)
