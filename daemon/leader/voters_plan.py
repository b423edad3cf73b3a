"""The next change of who votes. Pure.

An even number of voters survives no more losses than the odd number below it and is slower, so the wanted
number is the largest of 1, 3 and 5 that the hosts of role voter allow. Growing from one to three passes through
two, and only begins when both newcomers are up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

COUNTS = (5, 3, 1)


@dataclass(frozen=True)
class VoterStep:
    """One membership change."""

    message: str
    add: objects.Node | None = None
    remove: str = ""  # node id


def wanted_count(candidates: int) -> int:
    """How many of `candidates` hosts vote: 5, 3, 1 or none."""
    return next((count for count in COUNTS if candidates >= count), 0)


def plan_voters(nodes: Iterable[objects.Node], voters: Iterable[str], leader_id: str) -> VoterStep | None:
    """`voters`: node ids of the committed membership. None where all is as it should be."""
    known = {node.meta.id: node for node in nodes}
    current = list(voters)
    for node_id in sorted(current):
        if node_id not in known:
            return VoterStep(f"{node_id} was removed from the cluster and loses its vote", remove=node_id)
    candidates = [node for node in known.values() if node.role == objects.NODE_ROLE_VOTER]
    up = [node for node in candidates if node.state == objects.NODE_STATE_READY or node.meta.id in current]
    wanted = wanted_count(len(up))
    if len(current) < wanted:
        newcomers = [node for node in up if node.meta.id not in current]
        newcomer = min(newcomers, key=lambda node: _preference(node, current, known))
        return VoterStep(f"{newcomer.meta.name} gets a vote", add=newcomer)
    if len(current) > max(wanted, 1):
        others = [known[node_id] for node_id in current if node_id != leader_id]
        gone = max(others, key=lambda node: (node.state != objects.NODE_STATE_READY, node.meta.id))
        return VoterStep(f"{gone.meta.name} loses its vote: {wanted} are enough", remove=gone.meta.id)
    return None


def _preference(node: objects.Node, current: list[str], known: dict[str, objects.Node]) -> tuple[int, int, str]:
    """Hosts in zones with few voters first, then the eldest."""
    zone = node.meta.labels.get("zone", "")
    same_zone = sum(known[voter].meta.labels.get("zone", "") == zone for voter in current if voter in known)
    return (same_zone if zone else 0, node.meta.created_unix_ms, node.meta.id)


def record_voters(store: Store, voters: Iterable[str]) -> TransactionBuilder:
    """Notes in every Node whether it votes; no operations where all is noted."""
    builder = TransactionBuilder()
    chosen = set(voters)
    for node in store.table(objects.Node):
        if node.voter != (node.meta.id in chosen):
            changed = objects.Node()
            changed.CopyFrom(node)
            changed.voter = node.meta.id in chosen
            builder.update(changed)
    return builder
