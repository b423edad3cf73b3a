"""The fixed part of the nftables table: chains and sets that do not depend on services or tasks; pure.

A packet's way: `forged` drops what is forged, `way_in` remembers by which host a connection from outside came in,
`prerouting`/`output` choose a backend (destination NAT), `limits` and `forward` decide who may talk to whom,
`postrouting` hides sources where the answer could not find its way back. Each begins by sending IPv6 to a chain of the
same name with `_ipv6`, which the same functions make.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from net import nft_expressions as nft
from net.addresses import GATEWAY_ADDRESS, PEER_DNS_ADDRESS
from net.model import Host, NetworkConfig
from net.nft_family import NFPROTO_IPV6, Family, families
from net.policy_chains import asked_outside
from net.route_messages import pack_address
from net.ruleset import (
    FORWARD,
    INPUT,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    TYPE_ADDRESS,
    TYPE_ADDRESS_IPV6,
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

# Which bits of marks are ours: the ordinal of the host that a connection came in by.
MARK_SHIFT_BITS = 12
MARK_MASK = 0xFFFF << MARK_SHIFT_BITS
DNS_PEERS_MAX = 3
_OF_TCP = nft.meta(nft.META_L4PROTO) + nft.compare(b"\x06")
# Linux notes an ICMPv6 error for a socket in `connect` only where nobody waits in it: a client on this host would wait
# for its second SYN, a second later. A reset is kept for it.
_IPV6 = nft.meta(nft.META_NFPROTO) + nft.compare(bytes([NFPROTO_IPV6]))

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
    **_port_sets("_at_ipv6", concatenation(TYPE_ADDRESS_IPV6, TYPE_PROTOCOL, TYPE_PORT), 24),
    "host_marks": SetShape(TYPE_MAC, 6, TYPE_MARK, 4),
    "tunnels": SetShape(TYPE_ADDRESS, 4),
    "underlays": SetShape(TYPE_ADDRESS, 4),
    "underlays_ipv6": SetShape(TYPE_ADDRESS_IPV6, 16),
    "dns_peers": SetShape(TYPE_MARK, 4, TYPE_ADDRESS, 4),
    "hairpins": SetShape(concatenation(TYPE_ADDRESS, TYPE_ADDRESS), 8),
    "confined": SetShape(TYPE_ADDRESS, 4),
    "gone": SetShape(TYPE_ADDRESS, 4),
    "tasks": SetShape(TYPE_ADDRESS, 4, goes_to_chains=True),
    # By way of a group's number, since the kernel walks all that an element leads to whenever one is added.
    "ingress": SetShape(TYPE_ADDRESS, 4, TYPE_MARK, 4),
    "ingress_groups": SetShape(TYPE_MARK, 4, goes_to_chains=True),
    "egress": SetShape(TYPE_ADDRESS, 4, TYPE_MARK, 4),
    "egress_groups": SetShape(TYPE_MARK, 4, goes_to_chains=True),
    "guarded": SetShape(TYPE_ADDRESS, 4),
}


def host_mark(ordinal: int) -> int:
    return (ordinal << MARK_SHIFT_BITS) & MARK_MASK


def rule(comment: str, *expressions: bytes) -> Rule:
    return Rule(comment, b"".join(expressions))


def fixed_chains(config: NetworkConfig, local: Host, tunnel: str, veths: str, dns_peer_count: int) -> dict[str, Chain]:
    """All chains but those that draw a backend and those per group of networks.

    `tunnel` is the name of the VXLAN device, `veths` the pattern of the tasks' interfaces.
    """
    both = families(config, local)
    chains = {
        "refuse": Chain(
            (
                rule("refuse TCP at once", _OF_TCP, nft.reject_by_reset()),
                rule("refuse the rest at once", nft.reject_by_icmp(nft.PORT_UNREACHABLE)),
            )
        ),
        "not_allowed": Chain(
            (
                # By ICMP clients would wait in vain: the kernel sends few of those to a host a second.
                rule("not in a common network, TCP", _OF_TCP, nft.reject_by_reset()),
                rule("not in a common network", nft.reject_by_icmp(nft.ADMINISTRATIVELY_PROHIBITED)),
            )
        ),
        "way_out": Chain((_unmark(tunnel),), Hook("filter", POSTROUTING, -150)),
    }
    parts: dict[str, tuple[Hook | None, Callable[[Family], tuple[Rule, ...]]]] = {
        "stranger": (None, _stranger),
        "this_host": (None, _this_host),
        "forged": (Hook("filter", PREROUTING, -300), lambda family: _raw(family, tunnel, veths)),
        "way_in": (Hook("filter", PREROUTING, -150), lambda family: _mark(family, tunnel, veths)),
        "prerouting": (Hook("nat", PREROUTING, -100), lambda family: _prerouting(family, dns_peer_count)),
        "output": (Hook("nat", OUTPUT, -100), _output),
        "input": (Hook("filter", INPUT, 0), lambda family: _input(family, veths)),
        "limits": (Hook("filter", FORWARD, -1), _limits),
        "forward": (Hook("filter", FORWARD, 0), lambda family: _forward(family, tunnel)),
        "admit": (None, _admit),
        "local_output": (Hook("filter", OUTPUT, 0), lambda family: (_vip_without_backends(family), _gone(family))),
        "postrouting": (Hook("nat", POSTROUTING, 100), lambda family: _postrouting(family, tunnel)),
    }
    for name, (hook, rules) in parts.items():
        for family in both:
            first = (_to_ipv6(name, both),) if hook is not None and not family.is_ipv6 else ()
            chains[name + family.suffix] = Chain((*first, *rules(family)), None if family.is_ipv6 else hook)
    return chains


def _to_ipv6(name: str, both: tuple[Family, ...]) -> Rule:
    """A hook's chain sees packets of both families."""
    if len(both) == 1:
        return rule("IPv6 is not ours", _IPV6, nft.verdict(nft.ACCEPT))
    return rule("IPv6", _IPV6, nft.verdict(nft.GOTO, f"{name}_ipv6"))


def port_key(family: Family, *, at: bool = False) -> tuple[bytes, int]:
    """(what loads protocol and port asked for, and before them with `at` the address; the register after them)."""
    if not at:
        return nft.meta(nft.META_L4PROTO, nft.WORD_0) + nft.destination_port(nft.WORD_1), nft.WORD_2
    word = nft.WORD_0 + family.address_bytes // 4
    key = family.only() + family.destination(nft.FIRST) + nft.meta(nft.META_L4PROTO, word)
    return key + nft.destination_port(word + 1), word + 2


def at_suffix(family: Family) -> str:
    """What the names of sets end in that hold ports published at one address."""
    return f"_at{family.suffix}"


def _stranger(family: Family) -> tuple[Rule, ...]:
    accept = nft.verdict(nft.ACCEPT)
    return (
        rule("hosts themselves", family.our_source(), nft.lookup("tunnels"), accept),
        *(rule(f"trusted {cidr}", family.from_pool(cidr), accept) for cidr in family.trusted),
        rule("anyone else", nft.verdict(nft.GOTO, "not_allowed")),
    )


def _raw(family: Family, tunnel: str, veths: str) -> tuple[Rule, ...]:
    drop = nft.verdict(nft.DROP)
    loopback = family.to_pool(family.loopback)
    rules = (
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
    )
    if family.is_ipv6:
        return rules
    elsewhere = nft.from_interface(veths, unequal=True) + nft.from_interface("lo", unequal=True)
    return (*rules, rule("the gateway is for tasks and this host", elsewhere, family.to(GATEWAY_ADDRESS), drop))


def _mark(family: Family, tunnel: str, veths: str) -> tuple[Rule, ...]:
    return (
        rule(
            "remember which host a connection from outside came in by",
            nft.from_interface(tunnel),
            nft.connection_has(nft.CT_STATE, nft.STATE_NEW),
            family.from_pool(family.host_pool, outside=True),
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


def _balance(family: Family) -> tuple[Rule, ...]:
    return (
        rule("virtual addresses", family.our_destination(), nft.lookup("vips", nft.FIRST, nft.VERDICT)),
        rule(
            "published ports",
            nft.fib_destination_type(),
            nft.compare(struct.pack("=I", nft.TYPE_LOCAL)),
            nft.verdict(nft.GOTO, f"this_host{family.suffix}"),
        ),
    )


def _this_host(family: Family) -> tuple[Rule, ...]:
    """What is published at the address asked for comes before what is published at all."""
    rules = []
    for at, where in ((at_suffix(family), "of one address"), ("", "of every address")):
        key, _ = port_key(family, at=bool(at))
        address = family.bits_register
        straight = nft.lookup(f"straight{at}", nft.FIRST, address) + family.redirect(address + 1)
        rules += [
            rule(f"ports {where} that lead to a task here", key, straight),
            rule(f"ports {where}", key, nft.lookup(f"published{at}", nft.FIRST, nft.VERDICT)),
        ]
    return tuple(rules)


def _name_server(family: Family) -> tuple[Rule, ...]:
    """Name servers have IPv4 addresses only."""
    if family.is_ipv6:
        return ()
    return (rule("name server of this host", family.to(GATEWAY_ADDRESS), nft.verdict(nft.ACCEPT)),)


def _prerouting(family: Family, dns_peer_count: int) -> tuple[Rule, ...]:
    rules = _name_server(family)
    if dns_peer_count and not family.is_ipv6:
        peers = rule(
            "name servers of other hosts",
            family.to(PEER_DNS_ADDRESS),
            nft.random_number(dns_peer_count, nft.WORD_0),
            nft.lookup("dns_peers", nft.FIRST, family.bits_register),
            family.redirect(),
        )
        rules = (*rules, peers)
    return (*rules, *_balance(family))


def _output(family: Family) -> tuple[Rule, ...]:
    if family.is_ipv6:
        # What is redirected from ::1 gets no answer: the kernel takes no packet to it from another device. So a
        # client that tries ::1 first is refused at once and goes on to 127.0.0.1.
        first = rule("the loopback publishes over IPv4", family.to_pool(family.loopback), nft.verdict(nft.ACCEPT))
        return (first, *_balance(family))
    not_first = family.destination() + nft.compare(bytes([127, 0, 0, 1]), unequal=True)
    loopback = rule(
        "of the loopback only 127.0.0.1 publishes (127.0.0.53 is a resolver)",
        family.to_pool(family.loopback),
        not_first,
        nft.verdict(nft.ACCEPT),
    )
    return (*_name_server(family), loopback, *_balance(family))


def _input(family: Family, veths: str) -> tuple[Rule, ...]:
    new = nft.connection_has(nft.CT_STATE, nft.STATE_NEW)
    refuse = nft.verdict(nft.GOTO, "refuse")
    of_one, of_every = port_key(family, at=True)[0], port_key(family)[0]
    one = nft.lookup(f"refused{at_suffix(family)}")
    return (
        *_name_server(family),
        rule("published ports without a ready backend", new, of_every, nft.lookup("refused"), refuse),
        rule("published ports of one address without a ready backend", new, of_one, one, refuse),
        rule("tasks that policies limit", nft.from_interface(veths), new, _limited(family)),
    )


def _by_mark(groups: str) -> bytes:
    """Follows the number of a group by way of the packet's mark, which the group's chain takes off again: nft 1.0.6
    aborts at a map's value that is looked up at once."""
    return nft.set_mark() + nft.meta(nft.META_MARK) + nft.lookup(groups, nft.FIRST, nft.VERDICT)


def _limited(family: Family) -> bytes:
    """Sends what a task with egress policies begins to the chain of its group."""
    return family.our_source() + nft.lookup("egress", nft.FIRST, nft.FIRST) + _by_mark("egress_groups")


def _guarded(family: Family) -> bytes:
    """Sends what is for a task with ingress policies to the chain of its group."""
    return family.our_destination() + nft.lookup("ingress", nft.FIRST, nft.FIRST) + _by_mark("ingress_groups")


def _limits(family: Family) -> tuple[Rule, ...]:
    """What passes here is what `forward` decides about next; what is refused there anyway passes."""
    accept = nft.verdict(nft.ACCEPT)
    known = nft.connection_has(nft.CT_STATE, nft.STATE_ESTABLISHED | nft.STATE_RELATED)
    return (
        rule("what was allowed goes on", known, accept),
        rule("virtual addresses without a ready backend", family.to_pool(family.vip_pool), accept),
        rule("tasks that policies limit", _limited(family)),
    )


def _vip_without_backends(family: Family) -> Rule:
    return rule(
        "virtual addresses without a ready backend",
        family.to_pool(family.vip_pool),
        nft.verdict(nft.GOTO, "refuse"),
    )


def _gone(family: Family) -> Rule:
    """Their connections are forgotten (net/connections.py), so that what is left of them comes by here. Nothing else
    would end those that were made to a task's own address when its host is cut off."""
    return rule("tasks that are gone", family.our_destination(), nft.lookup("gone"), nft.verdict(nft.GOTO, "refuse"))


def _forward(family: Family, tunnel: str) -> tuple[Rule, ...]:
    accept, stranger = nft.verdict(nft.ACCEPT), nft.verdict(nft.GOTO, f"stranger{family.suffix}")
    admit, not_allowed = nft.verdict(nft.GOTO, f"admit{family.suffix}"), nft.verdict(nft.GOTO, "not_allowed")
    invalid = nft.connection_has(nft.CT_STATE, nft.STATE_INVALID) + nft.verdict(nft.DROP)
    known = nft.connection_has(nft.CT_STATE, nft.STATE_ESTABLISHED | nft.STATE_RELATED)
    to_tasks, from_tasks = family.to_pool(family.host_pool), family.from_pool(family.host_pool)
    from_outside = family.from_pool(family.host_pool, outside=True)
    refuse = nft.verdict(nft.GOTO, "refuse")
    no_server = () if family.is_ipv6 else (rule("no other name server", family.to(PEER_DNS_ADDRESS), refuse),)
    # Else a packet of the other end would begin a cut connection anew, the other way round.
    cut = nft.tcp_begins(no=True)
    return (
        rule("what was allowed goes on", known, accept),
        rule("out of any connection, from tasks", from_tasks, invalid),
        rule("out of any connection, to tasks", to_tasks, invalid),
        rule("connections that a policy cut, from the task", cut, family.our_source(), nft.lookup("guarded"), refuse),
        rule("connections that a policy cut, to it", cut, family.our_destination(), nft.lookup("guarded"), refuse),
        _vip_without_backends(family),
        _gone(family),
        *no_server,
        rule("published ports are open to all that policies let in", to_tasks, asked_outside(family), admit),
        rule("to other hosts: theirs to check", nft.to_interface(tunnel), from_tasks, accept),
        rule("to other hosts, from outside", nft.to_interface(tunnel), stranger),
        rule("from outside, by another host, which let it in", nft.from_interface(tunnel), from_outside, admit),
        *(rule(f"trusted {cidr}", family.from_pool(cidr), to_tasks, admit) for cidr in family.trusted),
        rule("from outside", from_outside, to_tasks, not_allowed),
        rule("tasks of this host that policies guard", _guarded(family)),
        rule("tasks of this host", family.our_destination(), nft.lookup("tasks", nft.FIRST, nft.VERDICT)),
        rule("no such task", to_tasks, stranger),
        rule("tasks of internal networks stay inside", family.our_source(), nft.lookup("confined"), not_allowed),
    )


def _admit(family: Family) -> tuple[Rule, ...]:
    """What comes from outside or by a published port; on the host that it came in by and on the task's."""
    return (
        rule("tasks that policies guard", _guarded(family)),
        rule("everyone else's tasks", nft.verdict(nft.ACCEPT)),
    )


def _postrouting(family: Family, tunnel: str) -> tuple[Rule, ...]:
    as_tunnel, to_tasks = family.as_tunnel(), family.to_pool(family.host_pool)
    itself = family.of_ours() + family.last_source(nft.WORD_0) + family.last_destination(nft.WORD_1)
    no_server = b""
    if not family.is_ipv6:
        no_server = family.original_destination() + nft.compare(pack_address(PEER_DNS_ADDRESS), unequal=True)
    return (
        rule("a task that reaches itself", itself, nft.lookup("hairpins"), as_tunnel),
        rule("from the host's loopback", family.from_pool(family.loopback), to_tasks, as_tunnel),
        rule(
            "tasks that use a published port",
            family.from_pool(family.host_pool),
            to_tasks,
            asked_outside(family),
            no_server,
            as_tunnel,
        ),
        rule(
            "hosts that use a published port of another",
            nft.to_interface(tunnel),
            family.only(),
            family.source(),
            nft.lookup(f"underlays{family.suffix}"),
            as_tunnel,
        ),
        rule(
            "tasks on their way out",
            family.from_pool(family.block),
            family.to_pool(family.host_pool, outside=True),
            family.to_pool(family.vip_pool, outside=True),
            nft.to_interface(tunnel, unequal=True),
            nft.masquerade(),
        ),
    )
