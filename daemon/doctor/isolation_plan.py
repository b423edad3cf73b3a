"""Whether a path may be used, as the state says it: the same answer that nftables gives, with the reason. Pure.

The verdict of policies (net/policy_plan.py) counts; where it is about networks alone, they are named here, for that is
what people have to change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from daemon.doctor.trace_ends_plan import OUTSIDE, Source, Target
from daemon.policies.policy_test_plan import judge, party_of, party_of_task
from net import policy_plan
from net.policy_plan import Connection, Party
from proto import objects_pb2 as objects
from raft.store import Store


@dataclass(frozen=True)
class Verdict:
    """Whether packets may pass, by which rule, and what would change it."""

    allowed: bool
    words: str
    advice: str = ""


def decide(store: Store, source: Source, target: Target) -> Verdict:
    """Of a path that `net trace` walks."""
    networks = {network.meta.id: network for network in store.table(objects.Network)}
    if target.kind == OUTSIDE:
        by_networks = to_outside(source.task, networks)
    elif target.networks:
        by_networks = between(source.task, target.networks, target.label, networks)
    else:
        return Verdict(True, "hosts answer their tasks")
    if source.task is None or not target.port:  # without a port rules cannot be told from each other
        return by_networks
    judged = judge(
        store,
        Connection(
            party_of_task(store, source.task),
            _party(store, target),
            target.protocol,
            target.port,
            bool(target.ipv6_prefix),
        ),
    )
    if judged.allowed:
        would = next((step.would for step in judged.steps if step.would), "")
        return Verdict(True, judged.rule + (f"; a policy that only counts would say: {would}" if would else ""))
    if not by_networks.allowed:
        return by_networks
    return Verdict(
        False,
        judged.rule,
        f"`fairway net policy test {source.label} {target.label} {target.port}` and `fairway net policy ls` say more",
    )


def _party(store: Store, target: Target) -> Party:
    if target.kind == OUTSIDE:
        return Party(policy_plan.OUTSIDE, target.addresses[0], target.label)
    if target.backends:
        return party_of_task(store, target.backends[0])
    return party_of(store, target.label)


def between(
    source: objects.Task | None, target_networks: Collection[str], target: str, networks: Mapping[str, objects.Network]
) -> Verdict:
    """From a task (None: a host) to what is in `target_networks` (ids)."""
    if source is None:
        return Verdict(True, "hosts reach every task")
    common = sorted(set(source.networks) & set(target_networks))
    if common:
        return Verdict(True, f"both are in network {_named(common[0], networks)}")
    own, other = _list(source.networks, networks), _list(target_networks, networks)
    return Verdict(
        False,
        f"{source.app}/{source.meta.name} is in {own}, {target} in {other}: they share no network",
        "let both services name a common network in the Compose file and deploy again"
        if _same_app(source, target_networks, networks)
        else "apps are kept apart; publish a port, or deploy both services as one app with a common network",
    )


def to_outside(source: objects.Task | None, networks: Mapping[str, objects.Network]) -> Verdict:
    """From a task (None: a host) to an address outside of the cluster."""
    if source is None:
        return Verdict(True, "hosts reach what their own network reaches")
    known = [networks[each] for each in source.networks if each in networks]
    if known and all(network.internal for network in known):
        return Verdict(
            False,
            f"{source.app}/{source.meta.name} is in internal networks only ({_list(source.networks, networks)}): "
            "there is no way out of them",
            "attach the service to a network that is not internal",
        )
    return Verdict(True, "its networks have a way out")


def _same_app(source: objects.Task, target: Collection[str], networks: Mapping[str, objects.Network]) -> bool:
    return any(networks[each].app == source.app for each in target if each in networks)


def _named(network_id: str, networks: Mapping[str, objects.Network]) -> str:
    network = networks.get(network_id)
    return f"{network.app}/{network.meta.name}" if network is not None else network_id


def _list(ids: Collection[str], networks: Mapping[str, objects.Network]) -> str:
    words = sorted(_named(each, networks) for each in ids)
    return "no network" if not words else f"network{'s' if len(words) > 1 else ''} {', '.join(words)}"
