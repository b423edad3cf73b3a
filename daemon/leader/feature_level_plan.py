"""When the cluster's feature level rises, and whom a level keeps out. Pure. The level itself: raft/features.py."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.leader.liveness_plan import host_is_up
from proto import objects_pb2 as objects
from raft.features import level, level_of
from raft.store import Store
from raft.transaction import TransactionBuilder


def known_level(description: objects.NodeDescription) -> int:
    """The highest level that a host's build knows, as the host says."""
    return level(description.feature_level)


def too_old(store: Store, name: str, stated_level: int, version: str) -> str:
    """Why a host's build has no part in this cluster, in words; empty where it may have one."""
    known, needed = level(stated_level), level_of(store)
    if known >= needed:
        return ""
    return (
        f"{name} runs fairway {version or 'of unknown version'}, which knows feature level {known}; "
        f"the cluster is at {needed}: upgrade fairway on {name}"
    )


def next_level(store: Store, voters: Iterable[str], known: int) -> int:
    """The level that everybody whose word counts knows; never below the present one.

    `voters`: node ids of the committed membership; `known`: what this leader's own build knows. Every voter must
    be up: one that is down may come back with whatever build. Other hosts count while they are up; one that
    comes back too old is told so, and does without the cluster until it is upgraded.
    """
    present = level_of(store)
    chosen = set(voters)
    nodes = {node.meta.id: node for node in store.table(objects.Node)}
    if not chosen or not all(
        node_id in nodes and nodes[node_id].state == objects.NODE_STATE_READY for node_id in chosen
    ):
        return present
    heard = [node for node in nodes.values() if host_is_up(node)]
    return max(present, min([known, *(known_level(node.description) for node in heard)]))


def plan_level(store: Store, voters: Iterable[str], known: int) -> tuple[TransactionBuilder, int]:
    """The transaction that raises the cluster to the next level, and that level; no operations where it stays."""
    wanted = next_level(store, voters, known)
    builder = TransactionBuilder()
    if wanted > level_of(store):
        for cluster in store.table(objects.Cluster):
            raised = objects.Cluster()
            raised.CopyFrom(cluster)
            raised.feature_level = wanted
            builder.update(raised)
        for node in store.table(objects.Node):
            if node.meta.id in set(voters):  # whose word changes meanwhile makes this plan anew
                builder.check(node)
    return builder, wanted
