"""Putting a transaction together: what is created, changed, deleted or only compared."""

from __future__ import annotations

from google.protobuf.message import Message

from proto import objects_pb2 as objects
from proto import store_pb2
from raft.features import level
from raft.schema import kind_of_message, meta_of

ANY_VERSION = 2**64 - 1
TRANSACTION_FORMAT = 1


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
