"""Policies as chains: what a verdict of `net/policy_plan.py` is in the kernel; pure.

A packet that begins a connection goes through `limits`, from a task that policies limit to its group's egress chain,
and then through `forward` to the ingress chain of the target's group, on the target's host and, for published ports,
also on the host that it came in by. Egress chains have a hook of their own: what they accept goes on to `forward`, and
the kernel, which walks every way through the chains of a hook when they change, has fewer to walk. A group is the
policies that decide on a task's direction and, for ingress, the task's networks. Each rule of a policy has a chain,
which a group's chain jumps to for each port.

Chains are first made as lines, which say what they mean and which tests interpret, and then as nftables rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from net import nft_expressions as nft
from net.addresses import PEER_DNS_ADDRESS
from net.nft_family import Family
from net.policy import INGRESS, PROTOCOLS, Peer, Policy, PolicyPort, Selector
from net.policy_plan import Deciding
from net.route_messages import pack_address
from net.ruleset import Chain, Rule

LOG_GROUP = 7447  # of NFLOG
LOGGED_PER_SECOND, LOGGED_BURST = 10, 20
LOGGED_BYTES = 64  # of a packet: its headers
LOG_POLICIES_MAX = 4  # named in the prefix, which has 127 characters

# What a line looks for; all but port and cidr stand for one fixed expression or set.
ITSELF, HOST, SERVICE, CIDR, NETWORK, PUBLISHED, OUTSIDE, PEER_DNS = (
    "itself",
    "host",
    "service",
    "cidr",
    "network",
    "published",
    "outside",
    "peer name server",
)
ACCEPT, GOTO, JUMP, COUNT = "accept", "goto", "jump", "count"


@dataclass(frozen=True, slots=True)
class Line:
    """Does `action` where everything that is asked for matches. COUNT goes on with the next line."""

    comment: str
    action: str
    chain: str = ""  # of GOTO and JUMP, without the family's suffix
    port: PolicyPort | None = None
    other: str = ""  # what the other end must be; empty: anything
    peer: Peer | None = None  # of CIDR
    name: str = ""  # of the set, for SERVICE and NETWORK
    policies: tuple[str, ...] = ()  # ids, of COUNT


@dataclass(frozen=True, slots=True)
class Membership:
    """A network of a task."""

    ordinal: int
    closed: bool
    ipv6_disabled: bool


@dataclass(frozen=True, slots=True)
class Group:
    """What tasks with the same chain have in common. Without networks: a task of another host, for published ports."""

    direction: str
    deciding: Deciding
    networks: tuple[Membership, ...] = ()

    @property
    def chain(self) -> str:
        return _group_name(self)


Lines = dict[str, list[Line]]


@lru_cache(maxsize=4096)
def _group_name(group: Group) -> str:
    parts = [str(group.deciding.counting), *(each.policy_id for each in group.deciding.policies)]
    parts += [f"{each.ordinal} {each.closed} {each.ipv6_disabled}" for each in group.networks]
    return f"{group.direction}_{_digest(' '.join(parts))}"


def peers_set(selector: Selector) -> str:
    """The name of the set of addresses of the tasks that a selector finds."""
    return f"peers_{_digest(repr(selector))}"


def counter_name(policy_id: str) -> str:
    return f"policy_{policy_id}"


def policy_of_counter(name: str) -> str:
    return name.removeprefix("policy_")


def selectors(policy: Policy) -> Iterator[Selector]:
    """Of the services that its rules name."""
    for rules in (policy.ingress, policy.egress):
        for rule in rules or ():
            for peer in rule.peers:
                if peer.services is not None:
                    yield peer.services


def policy_lines(group: Group, *, ipv6: bool) -> Lines:
    """The chains of one group, for one family, by name without the family's suffix; the rules' chains included."""
    return _ingress_lines(group, ipv6) if group.direction == INGRESS else _egress_lines(group)


def _ingress_lines(group: Group, ipv6: bool) -> Lines:
    members = [each for each in group.networks if not (ipv6 and each.ipv6_disabled)]
    by_default = [
        ("published", Line("", "", other=PUBLISHED)),
        ("from outside", Line("", "", other=OUTSIDE)),
        *(_member(each) for each in members if not each.closed),
    ]
    name, counting = group.chain, group.deciding.counting
    lines: list[Line] = [
        Line("hosts themselves", ACCEPT, other=HOST),
        Line("a task reaches itself", ACCEPT, other=ITSELF),
    ]
    chains: Lines = {name: lines}
    if counting:
        # What the default refuses is refused as ever; of the rest is counted what no rule allows.
        lines += [Line(words, GOTO, f"{name}_count", other=each.other, name=each.name) for words, each in by_default]
        lines.append(Line("anyone else", GOTO, "stranger"))
        lines = chains[f"{name}_count"] = []
    anyone = f"{name}_anyone"
    lines += _rules(group, chains, anyone)
    lines += _at_the_end(group)
    if any(line.chain == anyone for line in lines):
        everyone = by_default[:2] + [_member(each) for each in members]
        chains[anyone] = [Line(words, ACCEPT, other=each.other, name=each.name) for words, each in everyone]
    return chains


def _member(network: Membership) -> tuple[str, Line]:
    line = Line("", "", other=NETWORK, name=f"net_{network.ordinal}")
    return f"members of network {network.ordinal}", line


def _egress_lines(group: Group) -> Lines:
    lines = [
        Line("the name servers of other hosts", ACCEPT, other=PEER_DNS),
        Line("a task reaches itself", ACCEPT, other=ITSELF),
    ]
    chains: Lines = {group.chain: lines}
    lines += _rules(group, chains, "")
    lines += _at_the_end(group)
    return chains


def _rules(group: Group, chains: Lines, anyone: str) -> Iterator[Line]:
    """For each rule the lines of the group's own chain; `anyone`: the chain for those without peers, "" to accept."""
    for policy in group.deciding.policies:
        for number, rule in enumerate(policy.rules(group.direction) or (), start=1):
            words = f"rule {number} of {policy.name}"
            if rule.peers:
                name = f"policy_{policy.policy_id}_{group.direction}_{number}"
                chains[name] = [_peer_line(peer) for peer in rule.peers]
                verdict = (JUMP, name)
            elif anyone:
                verdict = (JUMP, anyone)
            else:
                verdict = (ACCEPT, "")
            for port in rule.ports or (None,):
                yield Line(words + (f", {port}" if port is not None else ""), *verdict, port=port)


def _peer_line(peer: Peer) -> Line:
    if peer.services is not None:
        return Line(str(peer), ACCEPT, other=SERVICE, name=peers_set(peer.services))
    return Line(str(peer), ACCEPT, other=CIDR, peer=peer)


def _at_the_end(group: Group) -> list[Line]:
    names = ", ".join(each.name for each in group.deciding.policies)
    ids = tuple(each.policy_id for each in group.deciding.policies)
    if group.deciding.counting:
        return [Line(f"would be denied by {names}", COUNT, policies=ids), Line("goes on", ACCEPT)]
    return [Line(f"denied by {names}", COUNT, policies=ids), Line("no rule allows it", GOTO, "not_allowed")]


def nft_chains(group: Group, families: tuple[Family, ...]) -> dict[str, Chain]:
    """The same as nftables chains."""
    found: dict[str, Chain] = {}
    for family in families:
        for name, lines in policy_lines(group, ipv6=family.is_ipv6).items():
            rules: list[Rule] = []
            if name == group.chain and not family.is_ipv6:
                rules.append(_rule("its number has led here", nft.load(bytes(4)) + nft.set_mark()))
            if not family.is_ipv6 and len(families) > 1 and name == group.chain:
                ipv6 = families[1]
                rules.append(_rule("IPv6", ipv6.only() + nft.verdict(nft.GOTO, name + ipv6.suffix)))
            for line in lines:
                rules += _nft_rules(line, group.direction, family)
            found[name + family.suffix] = Chain(tuple(rules))
    return found


def _rule(comment: str, expressions: bytes) -> Rule:
    return Rule(comment.encode()[:100].decode(errors="ignore"), expressions)


def _nft_rules(line: Line, direction: str, family: Family) -> Iterator[Rule]:
    if line.peer is not None and (":" in line.peer.cidr) != family.is_ipv6:
        return
    if line.other == PEER_DNS and family.is_ipv6:
        return
    match = _port(line.port) + _other(line, direction, family)
    if line.action == COUNT:
        counters = b"".join(nft.count(counter_name(each)) for each in line.policies)
        yield _rule(line.comment, match + counters)
        prefix = "fairway " + " ".join(line.policies[:LOG_POLICIES_MAX])
        log = nft.limit(LOGGED_PER_SECOND, LOGGED_BURST) + nft.log(LOG_GROUP, prefix, LOGGED_BYTES)
        yield _rule("tell fairwayd of some", match + log)
        return
    yield _rule(line.comment, match + _verdict(line, family))


def _verdict(line: Line, family: Family) -> bytes:
    if line.action == ACCEPT:
        return nft.verdict(nft.ACCEPT)
    chain = line.chain if line.chain == "not_allowed" else line.chain + family.suffix
    return nft.verdict(nft.JUMP if line.action == JUMP else nft.GOTO, chain)


def _port(port: PolicyPort | None) -> bytes:
    if port is None:
        return b""
    protocol = nft.meta(nft.META_L4PROTO) + nft.compare(bytes([PROTOCOLS[port.protocol]]))
    if not port.first:
        return protocol
    return protocol + nft.destination_port(nft.FIRST) + nft.between(port.first, port.last)


def _other(line: Line, direction: str, family: Family) -> bytes:
    ingress = direction == INGRESS
    address = family.our_source if ingress else family.our_destination
    pool = family.from_pool if ingress else family.to_pool
    match line.other:
        case "":
            return b""
        case "host":
            return address() + nft.lookup("tunnels")
        case "itself":
            addresses = family.last_source(nft.WORD_0) + family.last_destination(nft.WORD_1)
            return family.of_ours() + addresses + nft.lookup("hairpins")
        case "service" | "network":
            return address() + nft.lookup(line.name)
        case "published":
            return asked_outside(family)
        case "outside":
            return pool(family.host_pool, outside=True)
        case "peer name server":
            return family.original_destination() + nft.compare(pack_address(PEER_DNS_ADDRESS))
        case "cidr" if line.peer is not None:
            excepted = b"".join(pool(each, outside=True) for each in line.peer.excepted)
            return pool(family.host_pool, outside=True) + pool(line.peer.cidr) + excepted
    raise ValueError(f"{line.other!r} is nothing that a line can ask for")


def asked_outside(family: Family) -> bytes:
    """A connection that was redirected and did not ask for a VIP: by a published port."""
    redirected = nft.connection_has(nft.CT_STATUS, nft.STATUS_DNAT)
    return redirected + family.original_destination() + nft.within(family.vip_pool, outside=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
