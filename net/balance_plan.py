"""One service as elements of the nftables sets: where its VIP and published ports lead; pure.

A service's slots are held once, by its VIP and their number; its published ports lead to the VIP's slots. A port of
host mode leads straight to the task on this host.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from net.model import Endpoint, Frontend, Host, Port
from net.route_messages import pack_address
from net.ruleset import Data
from net.slots_plan import TURN, draw_of, slots

ServiceElements = dict[tuple[str, bytes], Data]
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Draw:
    """What a chain does that draws one of a service's slots."""

    what: str  # what leads to the chain: "vip", "published", "published_at" or "published_at_ipv6"
    kind: str  # of slots_plan
    count: int
    vip: str = ""  # whose chain it is; empty: any service's with as many slots

    @property
    def chain(self) -> str:
        return f"{self.what}_{packed(self.vip).hex()}" if self.vip else f"{self.what}_{self.kind}_{self.count}"


@dataclass(slots=True)
class ServiceRules:
    """One service in the table of one host."""

    elements: ServiceElements = field(default_factory=dict)
    draws: set[Draw] = field(default_factory=set)  # the chains that the elements lead to


def service_rules(frontend: Frontend, endpoints: Iterable[Endpoint], local: Host) -> ServiceRules:
    """One service as `local` balances it; only ready endpoints are backends.

    The numbers of slots are 0.. without a gap, since a chain draws one of their count.
    """
    endpoints = list(endpoints)
    rules = ServiceRules()
    kind, count = draw_of(frontend.balance), 0
    if frontend.vip:
        chosen = slots(frontend.balance, endpoints, local)
        count = len(chosen)
        vip = packed(frontend.vip)
        for number, backend in enumerate(chosen):
            rules.elements["backends", vip + struct.pack("=I", number)] = packed(backend.address)
        if count:
            # Taking turns counts connections, so that each service has a chain of its own for it.
            _lead(rules, ("vips", vip), Draw("vip", kind, count, frontend.vip if kind == TURN else ""))
    for port in frontend.ports:
        if not port.published:
            continue
        key, at = _key(port)
        if port.host_mode:
            _straight(rules, port, endpoints, local)
        elif count:
            _lead(rules, ("published" + at, key), Draw("published" + at, kind, count, frontend.vip))
            rules.elements["published_targets" + at, key] = struct.pack(">H", port.target)
        else:
            rules.elements["refused" + at, key] = None
    return rules


def _lead(rules: ServiceRules, element: tuple[str, bytes], draw: Draw) -> None:
    rules.elements[element] = draw.chain
    rules.draws.add(draw)


def _straight(rules: ServiceRules, port: Port, endpoints: Iterable[Endpoint], local: Host) -> None:
    """A host without a task leaves the port alone; one whose task is not ready refuses."""
    here = sorted((each for each in endpoints if each.node_id == local.node_id), key=lambda each: each.task_id)
    if not here:
        return
    key, at = _key(port)
    ready = next((each for each in here if each.ready), None)
    if ready is None:
        rules.elements["refused" + at, key] = None
    else:
        rules.elements["straight" + at, key] = packed(ready.address) + _port(port.target)


def _key(port: Port) -> tuple[bytes, str]:
    """The key of a published port, and what the names of the sets for it end in."""
    if port.protocol not in PROTOCOLS:
        raise ValueError(f"published port {port.published}: protocol {port.protocol!r} is not tcp, udp or sctp")
    key = struct.pack(">B3x", PROTOCOLS[port.protocol]) + _port(port.published)
    if not port.address:
        return key, ""
    return packed(port.address) + key, "_at_ipv6" if ":" in port.address else "_at"


def _port(number: int) -> bytes:
    """As a field of a concatenation."""
    return struct.pack(">H2x", number)


@lru_cache(maxsize=65536)
def packed(address: str) -> bytes:
    return pack_address(address)
