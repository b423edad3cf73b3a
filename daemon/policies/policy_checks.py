"""What must hold of a policy, whoever wrote it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from net.policy import PROTOCOLS
from proto import objects_pb2 as objects

RULES_MAX = 64  # of one direction
PEERS_MAX = 64  # of one rule
PORTS_MAX = 32  # of one rule
LABELS_MAX = 16
_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")


def policy_problems(policy: objects.Policy) -> Iterator[str]:
    """In words; nothing where all is well."""
    if _NAME.fullmatch(policy.meta.name) is None:
        yield (
            f"{policy.meta.name!r} cannot be the name of a policy: use at most 63 lower-case letters, digits, '-', '_' "
            "and '.', with a letter or digit at both ends"
        )
    if policy.selects.tenant not in ("", policy.meta.tenant):
        yield f"it can only select services of its own tenant, not of {policy.selects.tenant}"
    yield from _selector_problems(policy.selects)
    if not policy.HasField("ingress") and not policy.HasField("egress"):
        yield "it has neither ingress nor egress rules, so it would change nothing"
    for direction in ("ingress", "egress"):
        if policy.HasField(direction):
            yield from rules_problems(getattr(policy, direction), direction)


def service_policy_problems(policy: objects.ServicePolicy) -> Iterator[str]:
    """Of a policy in an app's file."""
    if not policy.HasField("ingress") and not policy.HasField("egress"):
        yield "its policy has neither ingress nor egress rules, so it would change nothing"
    for direction in ("ingress", "egress"):
        if policy.HasField(direction):
            yield from (f"its policy: {each}" for each in rules_problems(getattr(policy, direction), direction))


def rules_problems(rules: objects.PolicyRules, direction: str) -> Iterator[str]:
    if len(rules.rules) > RULES_MAX:
        yield f"{direction} has more than {RULES_MAX} rules"
    for number, rule in enumerate(rules.rules, start=1):
        where = f"{direction} rule {number}"
        if len(rule.peers) > PEERS_MAX or len(rule.ports) > PORTS_MAX:
            yield f"{where} has more than {PEERS_MAX} peers or {PORTS_MAX} ports"
        for peer in rule.peers:
            yield from (f"{where}: {each}" for each in _peer_problems(peer))
        for port in rule.ports:
            yield from (f"{where}: {each}" for each in _port_problems(port))


def _peer_problems(peer: objects.PolicyPeer) -> Iterator[str]:
    excepted = list(getattr(peer, "except"))
    if peer.HasField("services"):
        if peer.cidr or excepted:
            yield "a peer is either services or addresses, not both"
        yield from _selector_problems(peer.services)
        return
    try:
        network = ipaddress.ip_network(peer.cidr)
    except ValueError as error:
        yield f"{peer.cidr!r} is not a range of addresses such as 192.0.2.0/24 ({error})"
        return
    for text in excepted:
        try:
            inner = ipaddress.ip_network(text)
        except ValueError as error:
            yield f"{text!r} is not a range of addresses ({error})"
            continue
        if inner.version != network.version or not inner.subnet_of(network):  # type: ignore[arg-type]
            yield f"{text} is not within {peer.cidr}, so it cannot be an exception of it"


def _selector_problems(selector: objects.PolicySelector) -> Iterator[str]:
    if len(selector.labels) > LABELS_MAX:
        yield f"more than {LABELS_MAX} labels are asked for"


def _port_problems(port: objects.PolicyPort) -> Iterator[str]:
    if port.protocol not in PROTOCOLS:
        yield f"{port.protocol!r} is no protocol with ports; use {', '.join(PROTOCOLS)}"
    last = port.last or port.first
    if port.first > 65_535 or last > 65_535 or last < port.first:
        yield f"ports {port.first}-{last} are not a range within 1 to 65535"
