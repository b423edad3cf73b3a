"""Entries of the log and the commands in them: transactions, changes of the membership, and nothing.

An entry is PySyncObj's tuple (command, index, term). A command's first byte is its kind, with PySyncObj's
numbers because its own no-op of a new leader is one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from proto import raft_pb2, store_pb2
from raft.errors import MemberFault
from raft.settings import Peer

Entry = tuple[bytes, int, int]

TRANSACTION = 0
NOTHING = 1
MEMBERSHIP = 2

# Every log begins with it, so that the logs of all members agree on their first entry.
FIRST_ENTRY: Entry = (bytes([NOTHING]), 1, 0)


def transaction_command(transaction: store_pb2.Transaction) -> bytes:
    """The command that carries a transaction."""
    return bytes([TRANSACTION]) + transaction.SerializeToString()


def membership_command(voters: Sequence[Peer]) -> bytes:
    """The command that makes `voters` the whole membership."""
    return bytes([MEMBERSHIP]) + membership_message(voters).SerializeToString(deterministic=True)


def membership_message(voters: Sequence[Peer]) -> raft_pb2.RaftMembership:
    """The voters, in order of their ids, as a message."""
    return raft_pb2.RaftMembership(
        voters=[
            raft_pb2.RaftVoter(node_id=one.node_id, address=one.address, port=one.port, log_id=one.log_id)
            for one in sorted(voters, key=lambda voter: voter.node_id)
        ]
    )


def peers_of(membership: raft_pb2.RaftMembership) -> tuple[Peer, ...]:
    """The voters of a membership message."""
    return tuple(Peer(one.node_id, one.address, one.port, one.log_id) for one in membership.voters)


def membership_of(command: bytes) -> tuple[Peer, ...] | None:
    """The voters that a command sets, None for another kind. MemberFault where it cannot be read."""
    if command[:1] != bytes([MEMBERSHIP]):
        return None
    try:
        return peers_of(raft_pb2.RaftMembership.FromString(command[1:]))
    except DecodeError as error:
        raise MemberFault(f"a membership entry of the log cannot be read: {error}") from error
