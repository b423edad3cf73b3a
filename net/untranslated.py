"""Makes the kernel forget connections that no rule of ours led to a task, when there is one that would.

The kernel asks the rules about the first packet of a connection only. One that began while somebody had taken them
away, or before its port was published, stays with the host itself, refused, for as long as its entry lives: for ever
where a program goes on sending datagrams from one port, and for 10 s where a client takes the same port again.
One that another host led to a task here, while the rules were away here, is answered past that host, to nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from net.addresses import GATEWAY_ADDRESS, ipv4_of
from net.balance_plan import PROTOCOLS
from net.chains_plan import MARK_MASK
from net.connection_entries import Entry, forget_where
from net.model import DesiredNetwork
from net.path_observer import connection_count
from net.ruleset import RulesetChange

ENTRIES_MAX = 50_000  # where the table holds more, looking would take too long: they are left to end by themselves
_TCP = PROTOCOLS["tcp"]
_PORT_SETS = ("published", "straight")
_PROTOCOL_OFFSET = -8  # in a key of these sets


def forget_untranslated(desired: DesiredNetwork) -> list[str]:
    """What the kernel refused, in words."""
    if connection_count()[0] > ENTRIES_MAX:
        return [f"more than {ENTRIES_MAX} connections: those that began without our rules end by themselves"]
    return forget_where(strayed(desired), ipv6=bool(desired.config.ipv6_prefix))


def strayed(desired: DesiredNetwork) -> Callable[[Entry], bool]:
    """Whether a connection to a virtual address or a published port is with this host itself, or one from outside with
    a task does not know by which host it came; pure. What has been established with a program of the host, whose port
    was published later, goes on."""
    config, prefix = desired.config, desired.config.ipv6_prefix
    vips, overlay = ipaddress.IPv4Network(config.vip_pool), ipaddress.IPv4Network(config.host_pool)
    here = {desired.local.address, *desired.local.other_addresses, GATEWAY_ADDRESS}
    tasks = {task.address for task in desired.tasks}
    ports = [port for frontend in desired.frontends for port in frontend.ports if port.published]
    published = {(PROTOCOLS[port.protocol], port.published) for port in ports}

    def ours(address: str) -> str:
        """IPv4 form of an address of either family; empty where it is none of the cluster's."""
        return ipv4_of(prefix, address) if ":" in address else address

    def from_outside(entry: Entry) -> bool:
        source = ours(entry.source)
        return entry.source not in here and not (source and ipaddress.IPv4Address(source) in overlay)

    def test(entry: Entry) -> bool:
        if entry.asked != entry.answers or entry.established:
            return False
        if (entry.protocol, entry.port) in published and (
            entry.asked in here or ipaddress.ip_address(entry.asked).is_loopback
        ):
            return True
        asked = ours(entry.asked)
        if asked in tasks:
            return not entry.mark & MARK_MASK and from_outside(entry)
        return bool(asked) and ipaddress.IPv4Address(asked) in vips

    return test


def publishes_datagrams(steps: RulesetChange) -> bool:
    """Whether a port that is not TCP's leads to tasks from now on: of TCP, who was refused begins anew."""
    return any(
        key[_PROTOCOL_OFFSET] != _TCP and key not in steps.removed_elements.get(name, {})
        for name, elements in steps.new_elements.items()
        if name.startswith(_PORT_SETS) and "targets" not in name
        for key in elements
    )
