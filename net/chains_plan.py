"""The fixed part of the nftables table: chains and sets that do not depend on services or tasks; pure.

A packet's way: `forged` drops what is forged, `way_in` remembers by which host a connection from outside came in,
`prerouting`/`output` choose a backend (destination NAT), `forward` decides who may talk to whom,
`postrouting` hides sources where the answer could not find its way back.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from net import nft_expressions as nft
from net.addresses import GATEWAY_ADDRESS, PEER_DNS_ADDRESS
from net.balance_plan import Draw
from net.model import Host, NetworkConfig
from net.route_messages import pack_address
from net.ruleset import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    TYPE_ADDRESS,
    TYPE_MAC,
    TYPE_MARK,
    TYPE_PORT,
    TYPE_PROTOCOL,
    Chain,
    Hook,
    Rule,
    SetShape,
    concatenation,
)
from net.slots_plan import HASH, TURN

# Which bits of marks are ours: the ordinal of the host that a connection came in by.
MARK_SHIFT_BITS = 12
MARK_MASK = 0xFFFF << MARK_SHIFT_BITS
DNS_PEERS_MAX = 3
_TCP = b"\x06"

_PORT_KEY = concatenation(TYPE_PROTOCOL, TYPE_PORT)


def _port_sets(at: str, key_type: int, key_bytes: int) -> dict[str, SetShape]:
    """Published ports: those of every address (`at` is empty), and those of one address each ("_at")."""
    return {
        f"published{at}": SetShape(key_type, key_bytes, goes_to_chains=True),
        f"published_targets{at}": SetShape(key_type, key_bytes, TYPE_PORT, 2),
        f"straight{at}": SetShape(key_type, key_bytes, concatenation(TYPE_ADDRESS, TYPE_PORT), 8),
        f"refused{at}": SetShape(key_type, key_bytes),
    }


FIXED_SETS: dict[str, SetShape] = {
    "vips": SetShape(TYPE_ADDRESS, 4, goes_to_chains=True),
    "backends": SetShape(concatenation(TYPE_ADDRESS, TYPE_MARK), 8, TYPE_ADDRESS, 4),
    **_port_sets("", _PORT_KEY, 8),
    **_port_sets("_at", concatenation(TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT), 12),
    "host_marks": SetShape(TYPE_MAC, 6, TYPE_MARK, 4),
    "tunnels": SetShape(TYPE_ADDRESS, 4),
    "underlays": SetShape(TYPE_ADDRESS, 4),
    "dns_peers": SetShape(TYPE_MARK, 4, TYPE_ADDRESS, 4),
    "hairpins": SetShape(concatenation(TYPE_ADDRESS, TYPE_ADDRESS), 8),
    "confined": SetShape(TYPE_ADDRESS, 4),
    "tasks": SetShape(TYPE_ADDRESS, 4, goes_to_chains=True),
}


def host_mark(ordinal: int) -> int:
    return (ordinal << MARK_SHIFT_BITS) & MARK_MASK


def rule(comment: str, *expressions: bytes) -> Rule:
    return Rule(comment, b"".join(expressions))


def fixed_chains(config: NetworkConfig, local: Host, tunnel: str, veths: str, dns_peer_count: int) -> dict[str, Chain]:
    """All chains but those that draw a backend and those per group of networks.

    `tunnel` is the name of the VXLAN device, `veths` the pattern of the tasks' interfaces.
    """
    return {
        "refuse": Chain(
            (
                rule(
                    "refuse TCP at once",
                    nft.meta(nft.META_L4PROTO),
                    nft.compare(_TCP),
                    nft.reject_by_reset(),
                ),
                rule("refuse the rest at once", nft.reject_by_icmp(nft.ICMP_PORT_UNREACHABLE)),
            )
        ),
        "not_allowed": Chain(
            (rule("not in a common network", nft.reject_by_icmp(nft.ICMP_ADMINISTRATIVELY_PROHIBITED)),)
        ),
        "stranger": Chain((*_trusted(config), rule("anyone else", nft.verdict(nft.GOTO, "not_allowed")))),
        "forged": Chain(_raw(tunnel, veths), Hook("filter", PREROUTING, -300)),
        "way_in": Chain(_mark(config, tunnel, veths), Hook("filter", PREROUTING, -150)),
        "this_host": Chain(_this_host()),
        "prerouting": Chain(_prerouting(dns_peer_count), Hook("nat", PREROUTING, -100)),
        "output": Chain(_output(), Hook("nat", OUTPUT, -100)),
        "input": Chain(_input(), Hook("filter", INPUT, 0)),
        "forward": Chain(_forward(config, tunnel), Hook("filter", FORWARD, 0)),
        "local_output": Chain(
            (_vip_without_backends(config),),
            Hook("filter", OUTPUT, 0),
        ),
        "way_out": Chain((_unmark(tunnel),), Hook("filter", POSTROUTING, -150)),
        "postrouting": Chain(_postrouting(config, local, tunnel), Hook("nat", POSTROUTING, 100)),
    }


@lru_cache(maxsize=4096)
def balance_chain(draw: Draw) -> Chain:
    """Draws one of a service's slots and sends the connection to its backend.

    Chains of one service know its VIP, so that what leads to them need not change with the number of slots.
    """
    if draw.what == "vip":
        expressions = nft.destination(nft.WORD_0) + _number(draw, nft.WORD_1, nft.WORD_2)
        expressions += nft.lookup("backends", nft.FIRST, nft.FIRST) + nft.destination_nat(nft.FIRST)
        return Chain((rule(f"one of {draw.count} slots", expressions),))
    at = draw.what.removeprefix("published")
    expressions = _port_key(at=bool(at)) + nft.lookup(f"published_targets{at}", nft.FIRST, nft.SECOND)
    expressions += nft.load(pack_address(draw.vip), nft.WORD_0) + _number(draw, nft.WORD_1, nft.WORD_2)
    expressions += nft.lookup("backends", nft.FIRST, nft.FIRST) + nft.destination_nat(nft.FIRST, nft.SECOND)
    return Chain((rule(f"one of {draw.count} slots of {draw.vip} and its port", expressions),))


def _number(draw: Draw, register: int, spare: int) -> bytes:
    """Loads a slot's number; what is in `spare` may be lost."""
    if draw.kind == TURN:
        return nft.next_number(draw.count, register)
    if draw.kind == HASH:
        return nft.source(spare) + nft.hashed_number(draw.count, spare, 4, register)
    return nft.random_number(draw.count, register)


def group_chain(ordinals: tuple[int, ...]) -> Chain:
    """Lets in what shares a network with the destination; everyone else is a stranger."""
    members = (
        rule(
            f"members of network {ordinal}",
            nft.source(),
            nft.lookup(f"net_{ordinal}"),
            nft.verdict(nft.ACCEPT),
        )
        for ordinal in ordinals
    )
    return Chain((*members, rule("not a member", nft.verdict(nft.GOTO, "stranger"))))


def _port_key(*, at: bool = False) -> bytes:
    """Protocol and port asked for; with `at`, the address before them."""
    if at:
        return nft.destination(nft.WORD_0) + nft.meta(nft.META_L4PROTO, nft.WORD_1) + nft.destination_port(nft.WORD_2)
    return nft.meta(nft.META_L4PROTO, nft.WORD_0) + nft.destination_port(nft.WORD_1)


def _to(address: str) -> bytes:
    return nft.destination() + nft.compare(pack_address(address))


def _to_pool(cidr: str, *, outside: bool = False) -> bytes:
    return nft.destination() + nft.within(cidr, outside=outside)


def _from_pool(cidr: str, *, outside: bool = False) -> bytes:
    return nft.source() + nft.within(cidr, outside=outside)


def _asked_outside(cidr: str) -> bytes:
    """A connection that was redirected and did not ask for an address of `cidr`."""
    return (
        nft.connection_has(nft.CT_STATUS, nft.STATUS_DNAT) + nft.original_destination() + nft.within(cidr, outside=True)
    )


def _trusted(config: NetworkConfig) -> tuple[Rule, ...]:
    hosts = rule("hosts themselves", nft.source(), nft.lookup("tunnels"), nft.verdict(nft.ACCEPT))
    return (
        hosts,
        *(rule(f"trusted {cidr}", _from_pool(cidr), nft.verdict(nft.ACCEPT)) for cidr in config.trusted_cidrs),
    )


def _raw(tunnel: str, veths: str) -> tuple[Rule, ...]:
    drop = nft.verdict(nft.DROP)
    loopback = _to_pool("127.0.0.0/8")
    elsewhere = nft.from_interface(veths, unequal=True) + nft.from_interface("lo", unequal=True) + _to(GATEWAY_ADDRESS)
    return (
        # Publishing on 127.0.0.1 needs route_localnet on these devices; this keeps its services shut.
        rule("tasks do not reach the host's loopback", nft.from_interface(veths), loopback, drop),
        rule("nor do other hosts", nft.from_interface(tunnel), loopback, drop),
        rule(
            "a task sends from its own address only",
            nft.from_interface(veths),
            nft.fib_source_interface(),
            nft.compare(bytes(4)),
            drop,
        ),
        rule("the gateway is for tasks and this host", elsewhere, drop),
    )


def _mark(config: NetworkConfig, tunnel: str, veths: str) -> tuple[Rule, ...]:
    return (
        rule(
            "remember which host a connection from outside came in by",
            nft.from_interface(tunnel),
            nft.connection_has(nft.CT_STATE, nft.STATE_NEW),
            _from_pool(config.host_pool, outside=True),
            nft.ethernet_source(),
            nft.lookup("host_marks", nft.FIRST, nft.FIRST),
            nft.set_connection_mark(),
        ),
        rule(
            "answer through that host",
            nft.from_interface(veths),
            nft.connection_has(nft.CT_MARK, MARK_MASK),
            nft.connection(nft.CT_MARK),
            nft.set_mark(),
        ),
    )


def _unmark(tunnel: str) -> Rule:
    """VXLAN looks up its outer route with the packet's mark, which would lead into the tunnel again."""
    return rule("the outer packet goes its own way", nft.to_interface(tunnel), nft.load(bytes(4)), nft.set_mark())


def _balance() -> tuple[Rule, ...]:
    return (
        rule("virtual addresses", nft.destination(), nft.lookup("vips", nft.FIRST, nft.VERDICT)),
        rule(
            "published ports",
            nft.fib_destination_type(),
            nft.compare(struct.pack("=I", nft.TYPE_LOCAL)),
            nft.verdict(nft.GOTO, "this_host"),
        ),
    )


def _this_host() -> tuple[Rule, ...]:
    """What is published at the address asked for comes before what is published at all."""
    rules = []
    for at, where in (("_at", "of one address"), ("", "of every address")):
        key = _port_key(at=bool(at))
        straight = nft.lookup(f"straight{at}", nft.FIRST, nft.FIRST) + nft.destination_nat(nft.WORD_0, nft.WORD_1)
        rules += [
            rule(f"ports {where} that lead to a task here", key, straight),
            rule(f"ports {where}", key, nft.lookup(f"published{at}", nft.FIRST, nft.VERDICT)),
        ]
    return tuple(rules)


def _prerouting(dns_peer_count: int) -> tuple[Rule, ...]:
    gateway = rule("name server of this host", _to(GATEWAY_ADDRESS), nft.verdict(nft.ACCEPT))
    if not dns_peer_count:
        return (gateway, *_balance())
    peers = rule(
        "name servers of other hosts",
        _to(PEER_DNS_ADDRESS),
        nft.random_number(dns_peer_count, nft.WORD_0),
        nft.lookup("dns_peers", nft.FIRST, nft.FIRST),
        nft.destination_nat(nft.FIRST),
    )
    return (gateway, peers, *_balance())


def _output() -> tuple[Rule, ...]:
    not_first = nft.destination() + nft.compare(pack_address("127.0.0.1"), unequal=True)
    return (
        rule("name server of this host", _to(GATEWAY_ADDRESS), nft.verdict(nft.ACCEPT)),
        rule(
            "of the loopback only 127.0.0.1 publishes (127.0.0.53 is a resolver)",
            _to_pool("127.0.0.0/8"),
            not_first,
            nft.verdict(nft.ACCEPT),
        ),
        *_balance(),
    )


def _input() -> tuple[Rule, ...]:
    return (
        rule("name server of this host", _to(GATEWAY_ADDRESS), nft.verdict(nft.ACCEPT)),
        rule(
            "published ports without a ready backend",
            nft.connection_has(nft.CT_STATE, nft.STATE_NEW),
            _port_key(),
            nft.lookup("refused"),
            nft.verdict(nft.GOTO, "refuse"),
        ),
        rule(
            "published ports of one address without a ready backend",
            nft.connection_has(nft.CT_STATE, nft.STATE_NEW),
            _port_key(at=True),
            nft.lookup("refused_at"),
            nft.verdict(nft.GOTO, "refuse"),
        ),
    )


def _vip_without_backends(config: NetworkConfig) -> Rule:
    return rule(
        "virtual addresses without a ready backend",
        _to_pool(config.vip_pool),
        nft.verdict(nft.GOTO, "refuse"),
    )


def _forward(config: NetworkConfig, tunnel: str) -> tuple[Rule, ...]:
    accept, stranger = nft.verdict(nft.ACCEPT), nft.verdict(nft.GOTO, "stranger")
    invalid = nft.connection_has(nft.CT_STATE, nft.STATE_INVALID) + nft.verdict(nft.DROP)
    known = nft.connection_has(nft.CT_STATE, nft.STATE_ESTABLISHED | nft.STATE_RELATED)
    return (
        rule("what was allowed goes on", known, accept),
        rule("out of any connection, from tasks", _from_pool(config.host_pool), invalid),
        rule("out of any connection, to tasks", _to_pool(config.host_pool), invalid),
        _vip_without_backends(config),
        rule("no other name server", _to(PEER_DNS_ADDRESS), nft.verdict(nft.GOTO, "refuse")),
        rule(
            "published ports are open to all",
            _to_pool(config.host_pool),
            _asked_outside(config.vip_pool),
            accept,
        ),
        rule(
            "to other hosts: theirs to check",
            nft.to_interface(tunnel),
            _from_pool(config.host_pool),
            accept,
        ),
        rule("to other hosts, from outside", nft.to_interface(tunnel), stranger),
        rule(
            "from outside, checked by the host it came in by",
            nft.from_interface(tunnel),
            _from_pool(config.host_pool, outside=True),
            accept,
        ),
        rule("tasks of this host", nft.destination(), nft.lookup("tasks", nft.FIRST, nft.VERDICT)),
        rule("no such task", _to_pool(config.host_pool), stranger),
        rule(
            "tasks of internal networks stay inside",
            nft.source(),
            nft.lookup("confined"),
            nft.verdict(nft.GOTO, "not_allowed"),
        ),
    )


def _postrouting(config: NetworkConfig, local: Host, tunnel: str) -> tuple[Rule, ...]:
    as_tunnel = nft.source_nat(pack_address(local.tunnel_address))
    to_tasks = _to_pool(config.host_pool)
    return (
        rule(
            "a task that reaches itself",
            nft.source(nft.WORD_0),
            nft.destination(nft.WORD_1),
            nft.lookup("hairpins"),
            as_tunnel,
        ),
        rule("from the host's loopback", _from_pool("127.0.0.0/8"), to_tasks, as_tunnel),
        rule(
            "tasks that use a published port",
            _from_pool(config.host_pool),
            to_tasks,
            _asked_outside(config.vip_pool),
            nft.original_destination(),
            nft.compare(pack_address(PEER_DNS_ADDRESS), unequal=True),
            as_tunnel,
        ),
        rule(
            "hosts that use a published port of another",
            nft.to_interface(tunnel),
            nft.source(),
            nft.lookup("underlays"),
            as_tunnel,
        ),
        rule(
            "tasks on their way out",
            _from_pool(local.block),
            _to_pool(config.host_pool, outside=True),
            _to_pool(config.vip_pool, outside=True),
            nft.to_interface(tunnel, unequal=True),
            nft.masquerade(),
        ),
    )
