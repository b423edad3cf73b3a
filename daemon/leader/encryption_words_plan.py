"""Where the cluster is on its way to the encryption that is wanted, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.leader.encryption_plan import (
    CLEAR,
    KEY_AGE_MS_DEFAULT,
    goal_of,
    nodes_up,
    not_ready,
    revision_to_follow,
    way_of,
)
from daemon.orchestration.quantities import names_text
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store


def encryption_reply(
    store: Store, acknowledged_revision: int, network_revision: dict[str, int], now_unix_ms: int
) -> control.EncryptionReply:
    """`network_revision`: where each host stands that is in session, by node id."""
    cluster = next(iter(store.table(objects.Cluster)))
    nodes = sorted(store.table(objects.Node), key=lambda node: node.meta.name)
    way = way_of(cluster.encryption)
    needed = revision_to_follow(cluster, nodes_up(store))
    reply = control.EncryptionReply(
        wanted=cluster.network.encryption or objects.ENCRYPTION_NONE,
        state=cluster.encryption,
        key_age_ms_max=cluster.network.key_age_ms_max or KEY_AGE_MS_DEFAULT,
        settled=goal_of(cluster, now_unix_ms) == way.sending and not way.others and acknowledged_revision >= needed,
        summary=_summary(store, cluster, acknowledged_revision >= needed, now_unix_ms),
        hosts=[
            control.EncryptionHost(
                node_id=node.meta.id,
                name=node.meta.name,
                state=node.state,
                epochs=[key.epoch for key in node.network.keys],
                problem=node.network.encryption_problem,
                current=network_revision.get(node.meta.id, 0) >= needed,
            )
            for node in nodes
        ],
    )
    if not reply.state.receiving:
        reply.state.receiving.append(CLEAR)
    return reply


def _summary(store: Store, cluster: objects.Cluster, follows: bool, now_unix_ms: int) -> str:
    way, goal = way_of(cluster.encryption), goal_of(cluster, now_unix_ms)
    now = f"hosts send {_by(way.sending)}"
    nodes = nodes_up(store)
    problems = [node for node in nodes if node.network.encryption_problem]
    cut_off = f"; {_names(problems)} cannot encrypt and {_get(problems)} no tasks" if way.sending and problems else ""
    if goal == way.sending:
        if way.others:
            taken = " and ".join(f"what is sent {_by(epoch)}" for epoch in way.others)
            return f"{now}; they still take {taken} for a moment{cut_off}"
        return now + cut_off
    waiting = not_ready(nodes, goal, way.sending) if goal in way.receiving else []
    lacking = [node for node in waiting if node.network.encryption_problem]
    if lacking:
        reason = lacking[0].network.encryption_problem
        return f"{now}; they cannot change to sending {_by(goal)}, because {_names(lacking)} cannot: {reason}"
    if waiting:
        return (
            f"{now}; before they send {_by(goal)}, {_names(waiting)} {'has' if len(waiting) == 1 else 'have'} to "
            "make a key"
        )
    wait = "" if follows else ", once every host that is up knows of it"
    return f"{now}; next they send {_by(goal)}{wait}{cut_off}"


def _by(epoch: int) -> str:
    return f"encrypted by the keys of epoch {epoch}" if epoch else "in the clear"


def _get(nodes: Sequence[objects.Node]) -> str:
    return "gets" if len(nodes) == 1 else "get"


def _names(nodes: Sequence[objects.Node]) -> str:
    return names_text(sorted(node.meta.name for node in nodes), "hosts")
