"""`x-fairway`: what Compose has no keys for.

Of a service: balancing, addresses that move with healthy hosts, who may reach it and whom it may reach, how a new
version is brought in; of a network: whether its members reach each other.
"""

from __future__ import annotations

import ipaddress

from cli.compose.autoscale import read_autoscale
from cli.compose.budget import read_budget
from cli.compose.devices import read_asked
from cli.compose.kinds import read_job, read_schedule, read_stateful
from cli.compose.placement import CONSTRAINT
from cli.compose.placing import read_placement
from cli.compose.policy import read_service_policy
from cli.compose.precedence import KEYS as PRECEDENCE_KEYS
from cli.compose.precedence import read_precedence
from cli.compose.probes import read_probes
from cli.compose.reader import Field, Reader
from cli.compose.rollout import read_rollout
from proto import control_pb2, objects_pb2

_KEYS = frozenset(
    {
        "autoscale",
        "balance",
        "devices",
        "disruption_budget",
        "floating_addresses",
        "init_tasks",  # read by lifecycle.py
        "job",
        "placement",
        "policy",
        "probes",
        "rollout",
        "schedule",
        "stateful",
    }
)
_POLICIES = {
    "random": objects_pb2.BALANCE_POLICY_RANDOM,
    "round-robin": objects_pb2.BALANCE_POLICY_ROUND_ROBIN,
    "weighted": objects_pb2.BALANCE_POLICY_WEIGHTED,
    "source-hash": objects_pb2.BALANCE_POLICY_SOURCE_HASH,
    "least-loaded": objects_pb2.BALANCE_POLICY_LEAST_LOADED,
}
_LOADS = {"connections": objects_pb2.LOAD_MEASURE_CONNECTIONS, "cpu": objects_pb2.LOAD_MEASURE_CPU}
_WEIGHTS_MAX = 32
_WEIGHT_MAX = 100
_FLOATING_MAX = 8


def read_extension(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """Fills `spec`; keys that Fairway does not know are refused, since nobody else reads them."""
    entries = reader.known_entries(field, _KEYS | PRECEDENCE_KEYS)
    if "autoscale" in entries:
        read_autoscale(reader, entries["autoscale"], spec.autoscale)
    if "devices" in entries:
        read_asked(reader, entries["devices"], spec.resources)
    if "balance" in entries:
        _balance(reader, entries["balance"], spec.balance)
    if "floating_addresses" in entries:
        _floating(reader, entries["floating_addresses"], spec)
    if "policy" in entries:
        read_service_policy(reader, entries["policy"], spec.policy)
    if "disruption_budget" in entries:
        read_budget(reader, entries["disruption_budget"], spec.disruption_budget)
    if "placement" in entries:
        read_placement(reader, entries["placement"], spec.placement)
    read_precedence(reader, entries, spec)
    if "probes" in entries:
        read_probes(reader, entries["probes"], spec.container.probes)
    if "rollout" in entries:
        read_rollout(reader, entries["rollout"], spec.rollout)
    if "job" in entries:
        read_job(reader, entries["job"], spec.job)
    if "schedule" in entries:
        read_schedule(reader, entries["schedule"], spec.schedule)
    if "stateful" in entries:
        read_stateful(reader, entries["stateful"], spec)


def read_network_extension(reader: Reader, field: Field, network: control_pb2.NetworkSpec) -> None:
    """Fills `network`."""
    entries = reader.known_entries(field, frozenset({"default"}))
    if "default" in entries:
        network.closed = reader.choice(entries["default"], {"open": False, "closed": True}, False)


def _balance(reader: Reader, field: Field, balance: objects_pb2.Balance) -> None:
    balance.SetInParent()
    entries = reader.known_entries(field, frozenset({"policy", "local_first", "weights", "load"}))
    policy = "random"
    if "policy" in entries:
        policy = reader.text(entries["policy"])
        if policy not in _POLICIES:
            reader.refuse(entries["policy"], f"{policy!r} is not one of {', '.join(_POLICIES)}")
        balance.policy = _POLICIES.get(policy, objects_pb2.BALANCE_POLICY_RANDOM)
    if "local_first" in entries:
        balance.local_first = reader.boolean(entries["local_first"])
    if "weights" in entries:
        if policy != "weighted":
            reader.refuse(entries["weights"], f"has no effect with policy {policy}; use policy: weighted")
        _weights(reader, entries["weights"], balance)
    elif policy == "weighted":
        reader.refuse(field, "has policy weighted and no weights")
    if "load" in entries:
        load = reader.text(entries["load"])
        if load not in _LOADS:
            reader.refuse(entries["load"], f"{load!r} is not one of {', '.join(_LOADS)}")
        elif policy != "least-loaded":
            reader.refuse(entries["load"], f"has no effect with policy {policy}; use policy: least-loaded")
        balance.load = _LOADS.get(load, objects_pb2.LOAD_MEASURE_CONNECTIONS)


def _weights(reader: Reader, field: Field, balance: objects_pb2.Balance) -> None:
    elements = reader.elements(field)
    if len(elements) > _WEIGHTS_MAX:
        reader.refuse(field, f"has more than {_WEIGHTS_MAX} weights")
        return
    for each in elements:
        entries = reader.known_entries(each, frozenset({"constraint", "weight"}))
        missing = [key for key in ("constraint", "weight") if key not in entries]
        if missing:
            reader.refuse(each, f"has no {missing[0]}")
            continue
        text = reader.text(entries["constraint"])
        match = CONSTRAINT.fullmatch(text.strip())
        if match is None:
            example = "node.labels.size == big"
            reader.refuse(entries["constraint"], f'{text!r} is not a constraint; write it like "{example}"')
            continue
        constraint = f"{match[1]} {match[2]} {match[3].strip()}"
        balance.weights.add(constraint=constraint, weight=reader.integer(entries["weight"], 1, _WEIGHT_MAX))


def _floating(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    for each, text in reader.texts(field):
        try:
            address = ipaddress.ip_address(text.strip())
        except ValueError:
            reader.refuse(each, f"{text!r} is not an IP address")
            continue
        if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
            reader.refuse(each, f"{text} cannot be an address that moves between hosts")
        elif str(address) not in spec.floating_addresses:
            spec.floating_addresses.append(str(address))
    if len(spec.floating_addresses) > _FLOATING_MAX:
        reader.refuse(field, f"has more than {_FLOATING_MAX} addresses")
