"""Cuts established connections that policies forbid since they changed (conntrack over netlink).

The chains see only what begins, so what was allowed before a change of policy is looked for here, by the verdict of
`net/policy_plan.py`.
"""

from __future__ import annotations

import ipaddress

from net.addresses import PEER_DNS_ADDRESS, ipv4_of
from net.connection_entries import Entry, forget_where
from net.desired_changes import DesiredIndex
from net.model import DesiredNetwork
from net.policy import PROTOCOLS
from net.policy_elements import PolicyElements
from net.policy_plan import HOST, OUTSIDE, TASK, Connection, Party, World

_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Parties:
    """Who has an address."""

    def __init__(self, desired: DesiredNetwork, index: DesiredIndex, policies: PolicyElements) -> None:
        self._prefix = desired.config.ipv6_prefix
        self._pool = ipaddress.IPv4Network(desired.config.host_pool)
        self._vips = ipaddress.IPv4Network(desired.config.vip_pool)
        self._tasks = {each.address: (each.service_id, each.networks) for each in index.endpoints.values()}
        self._tasks.update({each.address: (each.service_id, each.networks) for each in desired.tasks})
        self._hosts = {each.tunnel_address for each in (desired.local, *desired.hosts)}
        # What comes from this host itself passes no chain of `forward`, whatever address it has.
        self._hosts |= {desired.local.address, *desired.local.other_addresses}
        self._services = policies.frontends
        self._world = World(policies.policies, index.networks, desired.config.trusted_cidrs)

    def forbidden(self, entry: Entry) -> bool:
        """Whether policies deny a connection; what is not exposed any more is not looked at here."""
        if entry.asked == PEER_DNS_ADDRESS:
            return False
        source, target = self._party(entry.source), self._party(entry.answers)
        if source is None or target is None or TASK not in (source.kind, target.kind):
            return False
        asked_vip = self._is_ours(entry.asked, self._vips)
        redirected = entry.asked != entry.answers and not asked_vip
        # What comes from outside was let in as published or trusted, here or on the host that it came in by.
        published = redirected or source.kind == OUTSIDE
        protocol, ipv6 = _NAMES.get(entry.protocol, "other"), ":" in entry.source
        return not self._world.verdict(Connection(source, target, protocol, entry.port, ipv6, published)).allowed

    def _party(self, address: str) -> Party | None:
        """None: a task that is not known any more."""
        ours = ipv4_of(self._prefix, address) if ":" in address else address
        if ours in self._tasks:
            service_id, networks = self._tasks[ours]
            return Party(TASK, ours, ours, self._services.get(service_id), networks)
        if ours in self._hosts or address in self._hosts or ipaddress.ip_address(address).is_loopback:
            return Party(HOST, address, address)
        return None if self._is_ours(address, self._pool) else Party(OUTSIDE, address, address)

    def _is_ours(self, address: str, pool: ipaddress.IPv4Network) -> bool:
        ours = ipv4_of(self._prefix, address) if ":" in address else address
        return bool(ours) and ipaddress.IPv4Address(ours) in pool


def cut_forbidden(desired: DesiredNetwork, index: DesiredIndex, policies: PolicyElements) -> list[str]:
    """Forgets connections that policies deny now, some 20 µs for each of the host's; what the kernel refused, in words.

    The next TCP packet of one is answered by a reset (chain `forward`); other protocols begin anew, and are judged.
    """
    parties = Parties(desired, index, policies)
    return forget_where(parties.forbidden, ipv6=bool(desired.config.ipv6_prefix))
