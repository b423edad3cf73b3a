"""Rules of policies, in an app's file (`x-fairway: policy:` of a service) and in files of their own."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from cli.compose.reader import Field, Reader
from proto import objects_pb2

_PORT = re.compile(r"(?:(?P<before>[a-z]+)/)?(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?(?:/(?P<after>[a-z]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_DIRECTIONS = {"ingress": "from", "egress": "to"}
_PEER_KEYS = frozenset({"service", "app", "tenant", "labels", "cidr", "except"})


def read_service_policy(reader: Reader, field: Field, policy: objects_pb2.ServicePolicy) -> None:
    """Fills `policy`."""
    policy.SetInParent()
    entries = reader.known_entries(field, frozenset({"ingress", "egress", "dry_run"}))
    read_directions(reader, field, entries, policy)


def read_directions(
    reader: Reader, field: Field, entries: dict[str, Field], policy: objects_pb2.ServicePolicy | objects_pb2.Policy
) -> None:
    """`ingress`, `egress` and `dry_run` among the entries of a policy."""
    if "ingress" not in entries and "egress" not in entries:
        reader.refuse(field, "has neither ingress nor egress, so it would change nothing")
    for direction, word in _DIRECTIONS.items():
        if direction in entries:
            rules = policy.ingress if direction == "ingress" else policy.egress
            rules.SetInParent()
            for each in reader.elements(entries[direction]):
                _rule(reader, each, word, rules.rules.add())
    if "dry_run" in entries:
        policy.dry_run = reader.boolean(entries["dry_run"])


def read_selector(reader: Reader, entries: dict[str, Field], selector: objects_pb2.PolicySelector) -> None:
    """`service` (also APP/SERVICE), `app`, `tenant` and `labels`."""
    if "service" in entries:
        app, slash, selector.service = reader.text(entries["service"]).rpartition("/")
        if slash:
            if "app" in entries:
                reader.refuse(entries["service"], "names the app, and so does app; write one of them")
            selector.app = app
    if "app" in entries:
        selector.app = reader.text(entries["app"])
    if "tenant" in entries:
        selector.tenant = reader.text(entries["tenant"])
    if "labels" in entries:
        selector.labels.update(reader.labels(entries["labels"]))


def _rule(reader: Reader, field: Field, word: str, rule: objects_pb2.PolicyRule) -> None:
    other = "to" if word == "from" else "from"
    hints = {other: f"{'ingress' if word == 'from' else 'egress'} has {word}"}
    entries = reader.known_entries(field, frozenset({word, "ports"}), hints)
    if word in entries:
        peers = reader.elements(entries[word])
        if not peers:
            reader.refuse(entries[word], "has no peers; leave it out for everyone, or the whole rule for nobody")
        for each in peers:
            _peer(reader, each, rule.peers.add())
    if "ports" in entries:
        ports = reader.texts(entries["ports"], single=True)
        if not ports:
            reader.refuse(entries["ports"], "has no ports; leave it out for all")
        for below, text in ports:
            _port(reader, below, text.strip().lower(), rule.ports.add())


def _peer(reader: Reader, field: Field, peer: objects_pb2.PolicyPeer) -> None:
    entries = reader.known_entries(field, _PEER_KEYS)
    if "cidr" not in entries:
        if "except" in entries:
            reader.refuse(entries["except"], "needs cidr beside it")
        peer.services.SetInParent()
        if not entries and field.is_mapping:
            return  # every service that there is to select from
        if not entries:
            reader.refuse(field, f"must have one of {', '.join(sorted(_PEER_KEYS))}")
        read_selector(reader, entries, peer.services)
        return
    if entries.keys() - {"cidr", "except"}:
        reader.refuse(field, "names addresses and services; make two peers of it")
    network = _network(reader, entries["cidr"])
    peer.cidr = str(network) if network is not None else ""
    if "except" not in entries:
        return
    for below, _ in reader.texts(entries["except"], single=True):
        inner = _network(reader, below)
        if inner is None or network is None:
            continue
        if inner.version != network.version or not inner.subnet_of(network):
            reader.refuse(below, f"{inner} is not within {network}")
        getattr(peer, "except").append(str(inner))


def _network(reader: Reader, field: Field) -> Any:
    """An address alone stands for itself. None where it is neither."""
    text = reader.text(field).strip()
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        reader.refuse(field, f"{text!r} is not a range of addresses such as 192.0.2.0/24 ({error})")
        return None


def _port(reader: Reader, field: Field, text: str, port: objects_pb2.PolicyPort) -> None:
    if text in _PROTOCOLS:
        port.protocol = text
        return
    found = _PORT.fullmatch(text)
    if found is None or (found["before"] and found["after"]):
        reader.refuse(field, f"{text!r} is not a port; write 80, 53/udp, 8000-8100 or tcp")
        return
    port.protocol = found["before"] or found["after"] or "tcp"
    if port.protocol not in _PROTOCOLS:
        reader.refuse(field, f"{port.protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not 0 < first <= last <= 65_535:
        reader.refuse(field, f"{text!r} is not within 1 to 65535")
        return
    port.first, port.last = first, last
