"""Cuts established connections that policies forbid since they changed (conntrack over netlink).

The chains see only what begins, so what was allowed before a change of policy is looked for here, by the verdict of
`net/policy_plan.py`. Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from net.addresses import PEER_DNS_ADDRESS, ipv4_of
from net.desired_changes import DesiredIndex
from net.errors import KernelRefused
from net.model import DesiredNetwork
from net.netlink import PROTOCOL_NETFILTER, Answer, Netlink, Request, attribute, attribute_map, nest
from net.policy import PROTOCOLS
from net.policy_elements import PolicyElements
from net.policy_plan import HOST, OUTSIDE, TASK, Connection, Party, World

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_HEADER = struct.Struct(">BBH")
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _SOURCE_PORT = 1, 2
_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection as it was asked for and as it is answered; addresses as text, `port` of who answers."""

    source: str
    asked: str
    answers: str
    protocol: int
    port: int
    delete: Request


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


def read_entries(answers: Iterable[Answer], family: int) -> Iterator[Entry]:
    for answer in answers:
        whole = attribute_map(answer.body, _HEADER.size)
        original, reply = attribute_map(whole.get(_ORIGINAL, b"")), attribute_map(whole.get(_REPLY, b""))
        asked_ip, answer_ip = attribute_map(original.get(_TUPLE_IP, b"")), attribute_map(reply.get(_TUPLE_IP, b""))
        protocol = attribute_map(reply.get(_TUPLE_PROTOCOL, b""))
        first = 1 if family == socket.AF_INET else 3  # source, then destination
        found = (asked_ip.get(first), asked_ip.get(first + 1), answer_ip.get(first))
        if None in found:
            continue
        source, asked, answering = (socket.inet_ntop(family, each) for each in found if each is not None)
        body = _HEADER.pack(family, 0, 0) + nest(_ORIGINAL, whole[_ORIGINAL])
        body += b"".join(attribute(kind, whole[kind]) for kind in (_ID, _ZONE) if kind in whole)
        yield Entry(
            source,
            asked,
            answering,
            protocol.get(_NUMBER, b"\0")[0],
            int.from_bytes(protocol.get(_SOURCE_PORT, b""), "big"),
            Request(_DELETE, 0, body, f"forget the connection of {source} to {answering}"),
        )


def cut_forbidden(desired: DesiredNetwork, index: DesiredIndex, policies: PolicyElements) -> list[str]:
    """Forgets connections that policies deny now, some 20 µs for each of the host's; what the kernel refused, in words.

    The next TCP packet of one is answered by a reset (chain `forward`); other protocols begin anew, and are judged.
    """
    parties = Parties(desired, index, policies)
    refused: list[str] = []
    with Netlink(PROTOCOL_NETFILTER) as netlink:
        for family in (socket.AF_INET, *([socket.AF_INET6] if desired.config.ipv6_prefix else [])):
            try:
                listed = netlink.dump(Request(_GET, 0, _HEADER.pack(family, 0, 0), "list connections"))
                entries = [each.delete for each in read_entries(listed, family) if parties.forbidden(each)]
                # Some have just ended by themselves.
                refused += [str(error) for _, error in netlink.ask_all(entries) if error.code != errno.ENOENT]
            except KernelRefused as error:
                refused.append(str(error))
    return refused
