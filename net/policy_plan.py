"""Who may reach whom, decided for one connection: whether it may, and by which rule; pure.

The kernel's chains (`net/policy_chains.py`) are made from the same parts - which policies concern a service, and in
which order rules count - and a test compares both over random worlds.

Egress of the source and ingress of the target decide each for itself. Within the default, tasks reach each other by a
common network that is not closed, and from outside by what is published. Rules that name services open more than that:
also between apps, and between tenants, where the target's policy names the other tenant. Rules with CIDRs, and rules
without peers, only let in what the default exposes.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from net.model import Frontend, NetworkInfo
from net.policy import EGRESS, INGRESS, Peer, Policy, PolicyPort, PolicyRule, Selector

TASK, HOST, OUTSIDE = "task", "host", "outside"


@dataclass(frozen=True, slots=True)
class Party:
    """One end. `address`: of a task its IPv4 one, of others the one that they use."""

    kind: str
    address: str
    label: str
    service: Frontend | None = None  # of a task; None: not known (any more), so no policy selects it
    networks: tuple[str, ...] = ()  # ids


@dataclass(frozen=True, slots=True)
class Connection:
    source: Party
    target: Party  # behind balancing
    protocol: str  # "tcp", "udp", "sctp"; another one has no ports
    port: int = 0
    ipv6: bool = False
    published: bool = False  # by a published port


@dataclass(frozen=True, slots=True)
class Deciding:
    """The policies that decide on one direction of a service."""

    policies: tuple[Policy, ...]  # that enforce; where none does, those that only count
    counting: bool  # they only count


@dataclass(frozen=True, slots=True)
class Step:
    direction: str
    allowed: bool
    rule: str  # that decides, in words
    would: str = ""  # what policies that only count would have said instead


@dataclass(frozen=True, slots=True)
class Verdict:
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        return all(step.allowed for step in self.steps)

    @property
    def rule(self) -> str:
        """Of the first step that denies, else of the last."""
        return next((step.rule for step in self.steps if not step.allowed), self.steps[-1].rule)


class Policies:
    """All of a cluster, by tenant."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_tenant: dict[str, list[Policy]] = defaultdict(list)
        for policy in sorted(policies, key=lambda each: (each.name, each.policy_id)):
            self._by_tenant[policy.selects.tenant].append(policy)

    def deciding(self, service: Frontend | None, direction: str) -> Deciding | None:
        """None where no policy has rules for this direction of a service."""
        if service is None:
            return None
        found = [each for each in self._by_tenant.get(service.tenant, ()) if matches(each.selects, service)]
        if service.policy is not None:
            found.append(service.policy)
        found = [each for each in found if each.rules(direction) is not None]
        enforcing = tuple(each for each in found if not each.dry_run)
        if not found:
            return None
        return Deciding(enforcing or tuple(found), counting=not enforcing)


def matches(selector: Selector, service: Frontend) -> bool:
    return (
        selector.tenant == service.tenant
        and selector.app in ("", service.app)
        and selector.service in ("", service.service)
        and all(pair in service.labels for pair in selector.labels)
    )


class World:
    """What a verdict depends on beside the connection."""

    def __init__(
        self, policies: Policies, networks: Mapping[str, NetworkInfo], trusted_cidrs: Iterable[str] = ()
    ) -> None:
        self._policies = policies
        self._networks = networks
        self._trusted = tuple(trusted_cidrs)

    def verdict(self, connection: Connection) -> Verdict:
        steps = []
        if connection.source.kind == TASK:
            steps.append(self._egress(connection))
        if connection.target.kind == TASK:
            steps.append(self._ingress(connection))
        return Verdict(tuple(steps) or (Step(EGRESS, True, "no policy concerns hosts and what is outside"),))

    def _egress(self, connection: Connection) -> Step:
        source, target = connection.source, connection.target
        if itself(connection):
            return Step(EGRESS, True, "a task reaches itself")
        known = [self._networks[each] for each in source.networks if each in self._networks]
        if target.kind == OUTSIDE and known and all(each.internal for each in known):
            return Step(EGRESS, False, f"{source.label} is in internal networks only: there is no way out of them")
        deciding = self._policies.deciding(source.service, EGRESS)
        if deciding is None:
            return Step(EGRESS, True, f"no policy limits what {source.label} may reach")
        return _judged(EGRESS, deciding, allowing(deciding, EGRESS, connection), f"{source.label} to {target.label}")

    def _ingress(self, connection: Connection) -> Step:
        source, target = connection.source, connection.target
        if source.kind == HOST:
            return Step(INGRESS, True, "hosts reach every task")
        if itself(connection):
            return Step(INGRESS, True, "a task reaches itself")
        default = self._default(connection)
        deciding = self._policies.deciding(target.service, INGRESS)
        if deciding is None or (deciding.counting and not default.allowed):
            return default
        if source.kind == OUTSIDE and not default.allowed:
            return default  # what is not exposed is not opened by policies
        found = allowing(deciding, INGRESS, connection)
        if found is not None and not found[1].peers and not default.allowed and not self._in_common(connection):
            return default
        words = f"{source.label} to {target.label}"
        if deciding.counting:
            step = _judged(INGRESS, deciding, found, words)
            return Step(INGRESS, True, default.rule, step.would)
        return _judged(INGRESS, deciding, found, words)

    def _default(self, connection: Connection) -> Step:
        """Without policies."""
        source, target = connection.source, connection.target
        if connection.published:
            return Step(INGRESS, True, "published ports are open to all")
        if source.kind == OUTSIDE:
            trusted = next((each for each in self._trusted if within(source.address, each)), "")
            if trusted:
                return Step(INGRESS, True, f"the cluster trusts {trusted}")
            return Step(INGRESS, False, "from outside only published ports can be reached")
        common = self._in_common(connection)
        for network in common:
            if not network.closed:
                return Step(INGRESS, True, f"both are in network {network.app}/{network.name}")
        if common:
            return Step(INGRESS, False, f"network {common[0].app}/{common[0].name} is closed, and no policy allows it")
        return Step(INGRESS, False, f"{source.label} and {target.label} share no network, and no policy allows it")

    def _in_common(self, connection: Connection) -> list[NetworkInfo]:
        common = [each for each in connection.target.networks if each in connection.source.networks]
        known = [self._networks[each] for each in common if each in self._networks]
        return [each for each in known if not (connection.ipv6 and each.ipv6_disabled)]


def itself(connection: Connection) -> bool:
    return connection.source.kind == connection.target.kind == TASK and (
        connection.source.address == connection.target.address
    )


def allowing(deciding: Deciding, direction: str, connection: Connection) -> tuple[Policy, PolicyRule, int] | None:
    """The first rule that allows a connection, by policy, and its number from 1. One that names peers comes first."""
    other = connection.source if direction == INGRESS else connection.target
    plain = None
    for policy in deciding.policies:
        for number, rule in enumerate(policy.rules(direction) or (), start=1):
            if rule.ports and not any(_port_matches(each, connection) for each in rule.ports):
                continue
            if any(_peer_matches(each, other) for each in rule.peers):
                return policy, rule, number
            if not rule.peers and plain is None:
                plain = (policy, rule, number)
    return plain


def _port_matches(port: PolicyPort, connection: Connection) -> bool:
    if port.protocol != connection.protocol:
        return False
    return not port.first or port.first <= connection.port <= port.last


def _peer_matches(peer: Peer, other: Party) -> bool:
    if peer.services is not None:
        return other.kind == TASK and other.service is not None and matches(peer.services, other.service)
    if other.kind == TASK or not within(other.address, peer.cidr):
        return False
    return not any(within(other.address, each) for each in peer.excepted)


def within(address: str, cidr: str) -> bool:
    """False where they are of different families."""
    network = _network(cidr)
    parsed = ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network


@lru_cache(maxsize=4096)
def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(cidr)


def _judged(direction: str, deciding: Deciding, found: tuple[Policy, PolicyRule, int] | None, words: str) -> Step:
    names = ", ".join(each.name for each in deciding.policies)
    many = "ies" if len(deciding.policies) > 1 else "y"
    if found is not None:
        policy, _, number = found
        return Step(direction, True, f"rule {number} of policy {policy.name} allows {direction}: {words}")
    if deciding.counting:
        return Step(
            direction,
            True,
            f"polic{many} {names} only count{'s' if len(many) == 1 else ''}",
            f"no rule of polic{many} {names} allows it ({words})",
        )
    return Step(direction, False, f"no {direction} rule of polic{many} {names} allows it: {words}")
