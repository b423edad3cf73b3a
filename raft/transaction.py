"""Putting a transaction together: what is created, changed, deleted or only compared."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from proto import objects_pb2 as objects
from proto import store_pb2
from raft.features import level
from raft.schema import kind_of_message, meta_of

ANY_VERSION = 2**64 - 1
TRANSACTION_FORMAT = 1
_CHAINED_VERSION = 2**63  # no log comes near it, so where it is left in place nothing matches


class TransactionBuilder:
    """Collects operations on objects; `build` makes the command that is proposed.

    An object takes part at most once (a check gives way to a write of the same object): ValueError where
    it is written twice. An id must be set; table and expected version come from the object itself.
    """

    def __init__(self) -> None:
        self._operations: dict[tuple[str, str], store_pb2.Operation] = {}
        self._level = 1

    def __len__(self) -> int:
        return len(self._operations)

    def create(self, stored: Message) -> TransactionBuilder:
        """`stored` must not exist yet."""
        return self._write(stored, 0, stored.SerializeToString())

    def update(self, stored: Message) -> TransactionBuilder:
        """`stored` replaces the object of the version it was read at (`meta.version`)."""
        return self._write(stored, _version_of(stored), stored.SerializeToString())

    def put(self, stored: Message) -> TransactionBuilder:
        """`stored` replaces whatever is there, if anything."""
        return self._write(stored, ANY_VERSION, stored.SerializeToString())

    def delete(self, stored: Message) -> TransactionBuilder:
        """Removes the object, if it still has the version that `stored` was read at."""
        return self._write(stored, _version_of(stored), b"")

    def check(self, stored: Message) -> TransactionBuilder:
        """Only demands that the object still has the version that `stored` was read at."""
        operation = _operation(stored, _version_of(stored), b"")
        operation.check_only = True
        self._operations.setdefault((operation.table, operation.id), operation)
        return self

    def needs(self, feature_level: int) -> TransactionBuilder:
        """Members that know less than this level must not carry it out (raft/features.py)."""
        self._level = max(self._level, feature_level)
        return self

    def extend(self, other: TransactionBuilder) -> TransactionBuilder:
        """Takes over all operations of `other`."""
        for operation in other._operations.values():
            if operation.check_only:
                self._operations.setdefault((operation.table, operation.id), operation)
            else:
                self._add(operation)
        return self.needs(other._level)

    def build(self, request_id: str, actor: str, now_unix_ms: int) -> store_pb2.Transaction:
        """The command. `request_id` (26 random characters) is kept by the caller for a retry."""
        return store_pb2.Transaction(
            request_id=request_id,
            format=TRANSACTION_FORMAT,
            proposed_unix_ms=now_unix_ms,
            operations=self._operations.values(),
            actor=actor,
            feature_level=self._level if self._level > 1 else 0,
        )

    def _write(self, stored: Message, expected_version: int, content: bytes) -> TransactionBuilder:
        self._add(_operation(stored, expected_version, content))
        return self.needs(_level_of(stored))

    def _add(self, operation: store_pb2.Operation) -> None:
        key = (operation.table, operation.id)
        known = self._operations.get(key)
        if known is not None and not known.check_only:
            raise ValueError(f"one transaction writes {operation.table}/{operation.id} twice")
        self._operations[key] = operation


def chained_version(position: int) -> int:
    """Stands for the version that the transaction at `position` of a chain will give to what it writes."""
    return _CHAINED_VERSION + position


def chained(transaction: store_pb2.Transaction, before: store_pb2.Transaction, position: int) -> bool:
    """Makes `transaction` depend on `before`, which is at `position` of their chain: it comes to nothing without it.

    False where that cannot be said, because `before` writes nothing that stays.
    """
    written = next((one for one in before.operations if one.object and not one.check_only), None)
    if written is None:
        return False
    demand = store_pb2.Operation(
        table=written.table, id=written.id, expected_version=chained_version(position), check_only=True
    )
    operations = [demand, *transaction.operations]
    del transaction.operations[:]
    transaction.operations.extend(operations)
    return True


def resolved(transaction: store_pb2.Transaction, indexes: Sequence[int]) -> store_pb2.Transaction:
    """With the versions that the log gives: `indexes` are those of the entries of its chain before it."""
    if not any(_CHAINED_VERSION <= one.expected_version < ANY_VERSION for one in transaction.operations):
        return transaction
    copy = store_pb2.Transaction()
    copy.CopyFrom(transaction)
    for operation in copy.operations:
        if _CHAINED_VERSION <= operation.expected_version < ANY_VERSION:
            operation.expected_version = indexes[operation.expected_version - _CHAINED_VERSION]
    return copy


def _version_of(stored: Message) -> int:
    version = meta_of(stored).version
    if version == 0:
        raise ValueError(f"{type(stored).__name__} {meta_of(stored).id!r} was not read from a store")
    return version


def _level_of(stored: Message) -> int:
    """A Cluster needs the level that it states, so that who does not know that one stops before it."""
    needed = kind_of_message(type(stored)).level
    return max(needed, level(stored.feature_level)) if isinstance(stored, objects.Cluster) else needed


def _operation(stored: Message, expected_version: int, content: bytes) -> store_pb2.Operation:
    table = kind_of_message(type(stored)).table
    identifier = meta_of(stored).id
    if not identifier:
        raise ValueError(f"a {type(stored).__name__} without meta.id cannot be stored")
    return store_pb2.Operation(
        table=table,
        id=identifier,
        expected_version=expected_version,
        object=content,
    )
