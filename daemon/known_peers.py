"""Tells consensus where every host that may vote is, as the store says; those that were removed are refused.

What this host's session with the leader says counts as well: where the cluster was restored from a backup,
this member's own store does not know the new leader, and would refuse the connection that brings it the
new state.
"""

from __future__ import annotations

from collections.abc import Iterable

from proto import objects_pb2 as objects
from raft.member import Member
from raft.schema import kind_of_message
from raft.settings import Peer
from raft.store import Store

NODES = kind_of_message(objects.Node).table


def peer_of(node: objects.Node) -> Peer:
    """Where a node's part in consensus listens."""
    return Peer(node.meta.id, node.address, node.raft_port)


def may_vote(store: Store) -> dict[str, Peer]:
    """Node id -> place of every node of role voter."""
    return {
        node.meta.id: peer_of(node)
        for node in store.table(objects.Node)
        if node.role == objects.NODE_ROLE_VOTER and node.address
    }


async def keep_peers_known(member: Member) -> None:
    """Follows the nodes until cancelled. A host that changed its address is dialled at the new one."""
    told: dict[str, Peer] = {}
    async with member.store.watch() as changes:
        _tell(member, told)
        async for batch in changes:
            if batch.resync or any(change.table == NODES for change in batch.changes):
                _tell(member, told)


def believe_session(member: Member, nodes: Iterable[objects.Node]) -> None:
    """The nodes as the leader of this host's session says they are; only while consensus has no leader here."""
    if member.status().quorum:
        return
    own = may_vote(member.store)
    for node in nodes:
        if node.role == objects.NODE_ROLE_VOTER and node.address and own.get(node.meta.id) != peer_of(node):
            member.update_peer_address(peer_of(node))


def _tell(member: Member, told: dict[str, Peer]) -> None:
    wanted = may_vote(member.store)
    for node_id, peer in wanted.items():
        if told.get(node_id) != peer:
            member.update_peer_address(peer)
    for node_id in told.keys() - wanted.keys():
        member.forget_peer(node_id)
    told.clear()
    told.update(wanted)
