"""The overlay in the kernel: the VXLAN device with its routes, neighbours, FDB entries and rules."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from pathlib import Path

from net import address_messages as addresses
from net import ipv6_support
from net import link_messages as links
from net import route_messages as routes
from net import rule_messages as rules
from net import tunnel_messages as tunnels
from net.differences import ADDRESS, DEVICE, FORWARDING_ENTRY, NEIGHBOUR, ROUTE, RULE, Difference, of_kind
from net.errors import KernelRefused, NetworkError
from net.ipv6_support import without_ipv6
from net.model import DesiredNetwork
from net.netlink import PROTOCOL_ROUTE, Netlink, Request
from net.overlay_plan import Overlay, mtu_bytes, overlay_of, replacing, tunnel_differences
from net.pyroute2_messages import rtnl
from net.route_messages import TABLE_MAIN, Route
from net.tunnel_messages import Link
from net.wireguard_plan import overhead_bytes, tunnel_source

log = logging.getLogger(__name__)

_UNDERLAY_MTU_DEFAULT_BYTES = 1500
_KINDS = {
    rtnl.RTM_NEWADDR: ADDRESS,
    rtnl.RTM_DELADDR: ADDRESS,
    rtnl.RTM_NEWROUTE: ROUTE,
    rtnl.RTM_DELROUTE: ROUTE,
    rtnl.RTM_NEWRULE: RULE,
    rtnl.RTM_DELRULE: RULE,
}


class OverlayDevice:
    """Not safe for several threads at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mtu_bytes = 0  # of tasks' interfaces; 0 before the first `apply`
        self.ipv6_prefix = ""  # of tasks' IPv6 addresses; empty: they have none
        self.ipv6_lacking = ""  # why they have none although the cluster has, in words
        self.underlay_bytes = 0  # MTU of the interface below; 0 before the first `apply`
        self.path_mtus: Mapping[str, int] = {}  # of the overlay by node id, where a path carries less
        self.wireguard = 0  # number of the device that the overlay's packets go into; 0: none
        self._netlink = Netlink(PROTOCOL_ROUTE)
        self._device = 0
        self._missing_address = ""  # the underlay address, while no interface has it
        self._applied: Overlay | None = None

    def close(self) -> None:
        self._netlink.close()

    def apply(self, desired: DesiredNetwork, *, compare: bool) -> list[str]:
        """Brings the overlay to the desired state; with `compare`, by what the kernel lists, else by what was
        applied before. Returns the differences that were repaired, in words. Raises KernelRefused."""
        found: list[str] = []
        if compare or self._applied is None:
            found += self._apply_device(desired)
        wanted = overlay_of(self._possible(desired), self._device, self.wireguard, self.path_mtus)
        present = self._observe() if compare or self._applied is None else self._applied
        requests, words = _steps(wanted, present)
        # Until it is done, nothing is known of the kernel.
        self._applied = None
        refused = [error for _, error in self._netlink.ask_all(requests) if not _harmless(error)]
        if refused:
            raise refused[0]
        self._applied = wanted
        return found + words

    def differences(self, desired: DesiredNetwork) -> list[str]:
        """What `apply` with `compare` would repair now, in words; changes nothing."""
        link = self._find(self.name)
        if link is None:
            return [Difference(DEVICE, f"missing device {self.name}")]
        config, local = desired.config, desired.local
        shape = (config.vxlan_id, config.vxlan_port, tunnel_source(desired), local.tunnel_mac)
        words = tunnel_differences(link, *shape, _settings(), self.mtu_bytes or link.mtu_bytes)
        found = of_kind(DEVICE, (f"device {self.name}: {each}" for part in words for each in part))
        requests, missing = _steps(
            overlay_of(self._possible(desired), link.number, self.wireguard, self.path_mtus), self._observe()
        )
        return [*found, *missing] if requests else list(found)

    def remove(self) -> None:
        """Takes the device, and with it what leads through it, and our routes and rules away."""
        present = self._observe()
        requests = [rules.delete_rule(rule) for rule in present.rules]
        requests += [routes.delete_route(route) for route in present.routes]
        link = self._find(self.name)
        if link is not None:
            requests.append(links.delete_link(link.number, link.name))
        self._applied = None
        for _, error in self._netlink.ask_all(requests):
            if not _harmless(error):
                raise error

    def _apply_device(self, desired: DesiredNetwork) -> list[str]:
        config, local = desired.config, desired.local
        self.underlay_bytes = self.underlay_mtu_bytes(local.address)
        self.mtu_bytes = mtu_bytes(config.mtu_bytes, self.underlay_bytes - overhead_bytes(desired), local.address)
        lacking = ipv6_support.lacking(desired, self.mtu_bytes)
        if lacking and lacking != self.ipv6_lacking:
            log.warning("%s", lacking)
        self.ipv6_lacking, self.ipv6_prefix = lacking, "" if lacking else config.ipv6_prefix
        settings = _settings()
        shape = (config.vxlan_id, config.vxlan_port, tunnel_source(desired), local.tunnel_mac)
        found: list[str] = []
        link = self._find(self.name)
        if link is not None:
            anew, _ = tunnel_differences(link, *shape, settings, self.mtu_bytes)
            if not anew and not self._change_source(link, desired):
                anew = ["it is of another family"]
            if anew:
                found += of_kind(DEVICE, (f"device {self.name}: {words}" for words in anew))
                self._netlink.ask(links.delete_link(link.number, link.name))
                link = None
        if link is None:
            found.append(Difference(DEVICE, f"missing device {self.name}"))
            self._make(desired)
            link = self._find(self.name)
            if link is None:
                raise NetworkError(f"VXLAN device {self.name} vanished while it was made: is another daemon here?")
        _, set_only = tunnel_differences(link, *shape, settings, self.mtu_bytes)
        if set_only:
            found += of_kind(DEVICE, (f"device {self.name}: {words}" for words in set_only))
            if ipv6_support.is_on(link.name):
                self._netlink.ask(links.without_ipv6_address(link.number, link.name))
            self._netlink.ask(
                links.set_link(
                    link.number,
                    link.name,
                    mac=local.tunnel_mac,
                    mtu_bytes=self.mtu_bytes,
                    settings=settings,
                )
            )
        if self.ipv6_prefix and ipv6_support.turn_on(link.name):
            found.append(Difference(DEVICE, f"device {self.name}: IPv6 was off"))
        self._device = link.number
        return found

    def _change_source(self, link: Link, desired: DesiredNetwork) -> bool:
        """Whether the device has the address that it sends from; the family it was made for cannot be changed."""
        source = tunnel_source(desired)
        if link.vxlan_local == source:
            return True
        ipv6 = ":" in desired.local.address
        try:
            self._netlink.ask(
                tunnels.set_vxlan_local(link.number, link.name, desired.config.vxlan_id, source, ipv6=ipv6)
            )
        except KernelRefused as error:
            if error.code != errno.EOPNOTSUPP:
                raise
            return False
        return True

    def _possible(self, desired: DesiredNetwork) -> DesiredNetwork:
        return without_ipv6(desired) if self.ipv6_lacking else desired

    def _make(self, desired: DesiredNetwork) -> None:
        config, local = desired.config, desired.local
        source = tunnel_source(desired) or tunnels.ANY[":" in local.address]
        request = tunnels.new_vxlan(
            self.name, config.vxlan_id, config.vxlan_port, source, local.tunnel_mac, self.mtu_bytes
        )
        try:
            self._netlink.ask(request)
        except KernelRefused as error:
            if error.code != errno.EEXIST:
                raise
            raise NetworkError(
                f"make VXLAN device {self.name}: another device of this host has id {config.vxlan_id} and "
                f"UDP port {config.vxlan_port} already; remove that one (`ip -d link show type vxlan`) "
                "or choose another vxlan_id"
            ) from error

    def _observe(self) -> Overlay:
        """What of ours the kernel has; routes to tasks of this host are not among it."""
        dump = self._netlink.dump
        overlay = Overlay()
        link = self._find(self.name)
        device = link.number if link else 0
        for family in (socket.AF_INET, socket.AF_INET6) if ipv6_support.is_there() else (socket.AF_INET,):
            overlay.rules.update(rule for each in dump(rules.list_rules(family)) if (rule := rules.read_rule(each)))
            for answer in dump(routes.list_routes(family)):
                route = routes.read_route(answer)
                if route is not None and not _leads_to_task(route, device):
                    overlay.routes.add(route)
        if not device:
            return overlay
        for answer in dump(addresses.list_addresses(device)):
            address = addresses.read_address(answer)
            if address is not None and address.device == device:
                overlay.addresses.add(address)
        for answer in dump(routes.list_neighbours(device)):
            neighbour = routes.read_neighbour(answer)
            if neighbour is not None and neighbour.device == device:
                overlay.neighbours.add(neighbour)
        for answer in dump(routes.list_forwardings(device)):
            forwarding = routes.read_forwarding(answer)
            if forwarding is not None and forwarding.device == device:
                overlay.forwardings.add(forwarding)
        return overlay

    def _find(self, name: str) -> Link | None:
        answer = self._netlink.get(links.get_link(name))
        return tunnels.read_link(answer) if answer else None

    def underlay_mtu_bytes(self, address: str) -> int:
        """Of the interface that has this address of the host."""
        for answer in self._netlink.dump(addresses.list_addresses()):
            found = addresses.read_address(answer)
            if found is not None and found.address == address:
                link = self._netlink.get(links.get_link_by_index(found.device))
                if link is not None:
                    self._missing_address = ""
                    return min(tunnels.read_link(link).mtu_bytes, 65535)
        if address != self._missing_address:
            log.warning("no interface of this host has its underlay address %s now", address)
        self._missing_address = address
        return self.underlay_bytes or _UNDERLAY_MTU_DEFAULT_BYTES  # it may come back as it was


def _settings() -> dict[int, int]:
    """Per-device IPv4 settings of the tunnel.

    Packets of outside clients come in by it although their way back is another (rp_filter off; where
    `all` is strict, the larger of both counts and loose is the least there is).
    """
    everyone = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip()
    return {
        links.CONF_FORWARDING: 1,
        links.CONF_SEND_REDIRECTS: 0,
        links.CONF_REVERSE_PATH_FILTER: 0 if everyone == "0" else 2,
        links.CONF_ACCEPT_LOCAL: 1,
        links.CONF_ROUTE_LOCALNET: 1,
    }


def _leads_to_task(route: Route, device: int) -> bool:
    return (
        route.table == TABLE_MAIN
        and route.destination.endswith(("/32", "/128"))
        and route.device not in (0, device)
        and not route.gateway
    )


def _steps(wanted: Overlay, present: Overlay) -> tuple[list[Request], list[str]]:
    """Removals first; addresses before the routes that name them as source."""
    old_routes, new_routes = replacing(wanted.routes, present.routes)
    old_neighbours, new_neighbours = replacing(wanted.neighbours, present.neighbours)
    old_forwardings, new_forwardings = replacing(wanted.forwardings, present.forwardings)
    removals = [rules.delete_rule(each) for each in present.rules - wanted.rules]
    removals += [routes.delete_route(each) for each in old_routes]
    removals += [routes.delete_neighbour(each) for each in old_neighbours]
    removals += [routes.delete_forwarding(each) for each in old_forwardings]
    additions = [addresses.new_address(each) for each in wanted.addresses - present.addresses]
    additions += [routes.new_neighbour(each) for each in new_neighbours]
    additions += [routes.new_forwarding(each) for each in new_forwardings]
    additions += [routes.new_route(each) for each in new_routes]
    additions += [rules.new_rule(each) for each in sorted(wanted.rules - present.rules, reverse=True)]
    late = [addresses.delete_address(each) for each in present.addresses - wanted.addresses]
    requests = removals + additions + late
    return requests, [Difference(_kind_of(request), f"had to {request.asked}") for request in requests]


def _kind_of(request: Request) -> str:
    if request.kind in (routes.NEWNEIGHBOUR, routes.DELNEIGHBOUR):  # of the bridge family: an FDB entry
        return NEIGHBOUR if request.body[0] in (socket.AF_INET, socket.AF_INET6) else FORWARDING_ENTRY
    return _KINDS[request.kind]


def _harmless(error: KernelRefused) -> bool:
    """What was to be removed is gone already."""
    return error.asked.startswith("remove") and error.code in (
        errno.ENOENT,
        errno.ESRCH,
        errno.EADDRNOTAVAIL,
        errno.ENODEV,
    )
