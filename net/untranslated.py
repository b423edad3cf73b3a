"""Makes the kernel forget connections that no rule of ours led to a task, when there is one that would.

The kernel asks the rules about the first packet of a connection only. One that began while somebody had taken them
away, or before its port was published, stays with the host itself, refused, for as long as its entry lives: for ever
where a program goes on sending datagrams from one port, and for 10 s where a client takes the same port again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from net.addresses import ipv4_of
from net.balance_plan import PROTOCOLS
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
    """Whether a connection to a virtual address or a published port is with this host itself; pure. What has been
    established with a program of the host, whose port was published later, goes on."""
    vips, prefix = ipaddress.IPv4Network(desired.config.vip_pool), desired.config.ipv6_prefix
    here = {desired.local.address, *desired.local.other_addresses}
    ports = [port for frontend in desired.frontends for port in frontend.ports if port.published]
    published = {(PROTOCOLS[port.protocol], port.published) for port in ports}

    def test(entry: Entry) -> bool:
        if entry.asked != entry.answers or entry.established:
            return False
        if (entry.protocol, entry.port) in published and (
            entry.asked in here or ipaddress.ip_address(entry.asked).is_loopback
        ):
            return True
        ours = ipv4_of(prefix, entry.asked) if ":" in entry.asked else entry.asked
        return bool(ours) and ipaddress.IPv4Address(ours) in vips

    return test


def publishes_datagrams(steps: RulesetChange) -> bool:
    """Whether a port that is not TCP's leads to tasks from now on: of TCP, who was refused begins anew."""
    return any(
        key[_PROTOCOL_OFFSET] != _TCP and key not in steps.removed_elements.get(name, {})
        for name, elements in steps.new_elements.items()
        if name.startswith(_PORT_SETS) and "targets" not in name
        for key in elements
    )
