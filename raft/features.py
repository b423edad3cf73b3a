"""The feature level: what of the commands and objects in the log every build of a mixed cluster understands.

A build knows all levels up to FEATURE_LEVEL. The cluster's own level is in its Cluster object; the leader
raises it when every host knows more, and it never falls. A transaction says which level it takes to carry it
out; a member that knows less stops its part in consensus before it, for its state would no longer be that of
the others. Fields that are only data need no level: protobuf keeps what a build does not know.

To add a table, a kind of command or a rule that changes what applying one does: raise FEATURE_LEVEL by one,
give the kind that `level` in raft/schema.py (or the transaction, by `TransactionBuilder.needs`), and propose
it only where `level_of(store)` has reached it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction
from raft.errors import MemberFault

if TYPE_CHECKING:
    from raft.store import Store

WORKLOADS_LEVEL = 2  # kinds of services that a leader who knows none would run all the time; secrets and configs
FEATURE_LEVEL = 2
CLUSTERS = "clusters"


class LevelUnknown(MemberFault):
    """The cluster uses what this build does not know."""

    def __init__(self, known: int, needed: int) -> None:
        super().__init__(
            f"this build knows feature level {known}, the cluster is at {needed}: upgrade fairway on this host"
        )


def level(stated: int) -> int:
    """A level as a message states it: absent means the first."""
    return max(stated, 1)


def level_of(store: Store) -> int:
    """The cluster's level; 1 while there is no cluster yet."""
    return max((level(cluster.feature_level) for cluster in store.table(objects.Cluster)), default=1)


def require(known: int, needed: int) -> None:
    """LevelUnknown where a build that knows `known` must not go on with what needs `needed`."""
    if level(needed) > known:
        raise LevelUnknown(known, needed)


def raises_to(transaction: Transaction) -> int:
    """The level that a transaction gives the cluster; 0 where it writes no Cluster."""
    found = 0
    for operation in transaction.operations:
        if operation.table == CLUSTERS and operation.object:
            try:
                found = max(found, level(objects.Cluster.FromString(operation.object).feature_level))
            except DecodeError:
                continue  # which applying refuses
    return found


def too_early(store: Store, transaction: Transaction) -> str:
    """Why a leader must not propose a transaction as yet, in words; empty where it may."""
    needed = level(transaction.feature_level)
    if needed == 1 or needed <= max(level_of(store), raises_to(transaction)):
        return ""
    return (
        f"the change needs feature level {needed}, the cluster is at {level_of(store)}: "
        "upgrade fairway on the hosts that run an older build (`fairway node ls -o wide` shows them)"
    )
