"""The embedded store: typed tables that transactions change, all of a transaction or none of it.

`Store.apply` is the state machine that every member runs over the same log, so it is total and
deterministic: no clock, no randomness, no I/O; what is wrong comes back as a value. Objects are protobuf
messages that nobody alters once they are in, so threads and watchers share them.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import trio
from google.protobuf.message import DecodeError, Message

from proto import objects_pb2 as objects
from proto import store_pb2
from proto.store_pb2 import TransactionResult
from raft.features import level
from raft.schema import KINDS, Key, kind_of_message, kind_of_table, meta_of
from raft.table import Table
from raft.transaction import ANY_VERSION, TRANSACTION_FORMAT
from raft.watch import Change, ChangeBatch, Subscription

__all__ = ["ANY_VERSION", "Change", "ChangeBatch", "Store", "Subscription", "Table"]

M = TypeVar("M", bound=Message)

REQUESTS_REMEMBERED_MAX = 4096  # part of the replicated state: every member must use the same number
OPERATIONS_MAX = 4096
IDENTIFIER_CHARACTERS_MAX = 128
WATCH_CHANGES_MAX = 20_000


class _Refusal(Exception):
    """Carries a result that is not OK out of the checks of one transaction."""

    def __init__(self, code: TransactionResult.Code.ValueType, operation: Any, message: str) -> None:
        super().__init__(message)
        self.result = TransactionResult(
            code=code, table=operation.table, id=operation.id[:IDENTIFIER_CHARACTERS_MAX], message=message
        )


class Store:
    """All tables at one revision. Belongs to one thread; watchers and waiters to its trio loop."""

    def __init__(self) -> None:
        self.revision = 0
        self._tables: dict[str, Table[Any]] = {kind.table: Table(kind) for kind in KINDS}
        self._requests: OrderedDict[str, TransactionResult] = OrderedDict()
        self._subscriptions: list[Subscription] = []
        self._waiters = trio.lowlevel.ParkingLot()

    # ---- reading ------------------------------------------------------------------------------

    def table(self, message: type[M]) -> Table[M]:
        """The table of a message class; TypeError for one that is not stored."""
        return cast(Table[M], self._tables[kind_of_message(message).table])

    def get(self, message: type[M], identifier: str) -> M | None:
        """The object of this class with this id."""
        return self.table(message).get(identifier)

    def objects(self) -> Iterator[tuple[str, Message]]:
        """Every object with its table's name, as all are now."""
        return iter([(name, stored) for name, table in self._tables.items() for stored in table])

    def requests(self) -> list[tuple[str, TransactionResult]]:
        """The remembered request ids, oldest first, each with the result it had."""
        return list(self._requests.items())

    def remembers(self, request_id: str) -> bool:
        """Whether `apply` would answer this request id with an earlier result."""
        return request_id in self._requests

    def watch(self, changes_max: int = WATCH_CHANGES_MAX) -> Subscription:
        """Every change from now on, in order."""
        subscription = Subscription(self._forget, changes_max)
        self._subscriptions.append(subscription)
        return subscription

    async def changed(self, since_revision: int) -> int:
        """Waits until the store is beyond `since_revision` and returns its revision."""
        await trio.lowlevel.checkpoint()
        while self.revision <= since_revision:
            await self._waiters.park()
        return self.revision

    # ---- changing -----------------------------------------------------------------------------

    def apply(self, transaction: store_pb2.Transaction, revision: int) -> tuple[TransactionResult, list[Change]]:
        """Carries out one transaction of the log; `revision` is above every one before.

        What it writes gets `revision` as its version. A request id that is remembered changes nothing and
        returns its first result. Where the result is not OK nothing was changed.
        """
        known = self._requests.get(transaction.request_id) if transaction.request_id else None
        if known is not None:
            return known, []
        try:
            planned = self._plan(transaction, revision)
        except _Refusal as refusal:
            result, changes = refusal.result, []
            result.revision = self.revision
        else:
            changes = [
                Change(table, identifier, self._tables[table].replace(identifier, after), after)
                for (table, identifier), after in planned.items()
            ]
            if changes:
                self.revision = revision
            result = TransactionResult(code=TransactionResult.OK, revision=self.revision)
        if transaction.request_id:
            self.remember(transaction.request_id, result)
        if changes:
            self._publish(ChangeBatch(revision, changes))
        return result, changes

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[Callable[[store_pb2.Transaction, int], bool]]:
        """Within it the function given carries out transactions in the tables alone, under a version of the caller's
        choice, and says whether they would be; at the end all is as before. Nobody is told, so nobody else may run:
        there must be no checkpoint inside.
        """
        done: list[Change] = []

        def rehearse(transaction: store_pb2.Transaction, version: int) -> bool:
            try:
                planned = self._plan(transaction, version)
            except _Refusal:
                return False
            done.extend(
                Change(table, identifier, self._tables[table].replace(identifier, after), after)
                for (table, identifier), after in planned.items()
            )
            return True

        try:
            yield rehearse
        finally:
            for change in reversed(done):
                self._tables[change.table].replace(change.id, change.before)

    def absorb(self, changes: Sequence[Change], revision: int) -> None:
        """Takes over what another member or thread applied already; tells the watchers."""
        for change in changes:
            self._tables[change.table].replace(change.id, change.after)
        self.revision = revision
        if changes:
            self._publish(ChangeBatch(revision, changes))

    def restore(
        self,
        stored: Iterable[tuple[str, Message]],
        requests: Iterable[tuple[str, TransactionResult]],
        revision: int,
    ) -> None:
        """Replaces everything by a snapshot; watchers get a resync. KeyError for an unknown table."""
        objects_of: dict[str, dict[str, Message]] = {kind.table: {} for kind in KINDS}
        for table, one in stored:
            objects_of[table][meta_of(one).id] = one
        self.take_over([Table.filled(kind, objects_of[kind.table]) for kind in KINDS], requests, revision)

    def tables(self) -> list[Table[Any]]:
        """Copies of all tables as they are now, for `take_over` of another store."""
        return [table.copied() for table in self._tables.values()]

    def take_over(
        self, tables: Iterable[Table[Any]], requests: Iterable[tuple[str, TransactionResult]], revision: int
    ) -> None:
        """Replaces everything by these tables, one of each kind; watchers get a resync."""
        self._tables = {table.kind.table: table for table in tables}
        self._requests = OrderedDict(requests)
        self.revision = revision
        self._publish(ChangeBatch(revision, resync=True))

    def remember(self, request_id: str, result: TransactionResult) -> None:
        """Keeps a request's result; the oldest is forgotten beyond REQUESTS_REMEMBERED_MAX."""
        self._requests[request_id] = result
        while len(self._requests) > REQUESTS_REMEMBERED_MAX:
            self._requests.popitem(last=False)

    # ---- one transaction ----------------------------------------------------------------------

    def _plan(self, transaction: store_pb2.Transaction, revision: int) -> dict[tuple[str, str], Message | None]:
        if transaction.format != TRANSACTION_FORMAT or len(transaction.operations) > OPERATIONS_MAX:
            raise _Refusal(
                TransactionResult.INVALID,
                store_pb2.Operation(),
                f"transaction of format {transaction.format} with {len(transaction.operations)} operations: "
                f"this store knows format {TRANSACTION_FORMAT} and at most {OPERATIONS_MAX} operations",
            )
        planned: dict[tuple[str, str], Message | None] = {}
        for operation in transaction.operations:
            if not operation.id or len(operation.id) > IDENTIFIER_CHARACTERS_MAX:
                raise _Refusal(TransactionResult.INVALID, operation, "id is empty or too long")
            before = self._compare(operation)
            if operation.check_only:
                continue
            key = (operation.table, operation.id)
            if key in planned:
                raise _Refusal(TransactionResult.INVALID, operation, "written twice in one transaction")
            if operation.object:
                planned[key] = _stamped(operation, before, transaction.proposed_unix_ms, revision)
            elif before is not None:
                planned[key] = None
        self._check_unique(transaction, planned)
        return planned

    def _compare(self, operation: store_pb2.Operation) -> Message | None:
        table = self._tables.get(operation.table)
        if table is None:
            raise _Refusal(TransactionResult.INVALID, operation, f"no table {operation.table!r}")
        before: Message | None = table.get(operation.id)
        expected = operation.expected_version
        if expected == ANY_VERSION:
            return before
        actual = meta_of(before).version if before is not None else 0
        if actual != expected:
            raise _Refusal(
                TransactionResult.CONFLICT,
                operation,
                f"{operation.table}/{operation.id} has {_version_text(actual)}, "
                f"the request expects {_version_text(expected)}: read it again and retry",
            )
        return before

    def _check_unique(self, transaction: store_pb2.Transaction, planned: dict[tuple[str, str], Message | None]) -> None:
        claimed: dict[tuple[str, str, Key], str] = {}
        for operation in transaction.operations:
            after = planned.get((operation.table, operation.id))
            if operation.check_only or after is None:
                continue
            table = self._tables[operation.table]
            for name, key_of in table.kind.unique.items():
                key = key_of(after)
                if key is None:
                    continue
                holder = table.unique(name, key)
                taken = holder is not None and (operation.table, meta_of(holder).id) not in planned
                other = claimed.setdefault((operation.table, name, key), operation.id)
                if taken or other != operation.id:
                    raise _Refusal(
                        TransactionResult.DUPLICATE,
                        operation,
                        f"{operation.table}: {name} {_key_text(key)} is taken already",
                    )

    def _publish(self, batch: ChangeBatch) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.publish(batch)
        if self._waiters:
            self._waiters.unpark_all()

    def _forget(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)


def _stamped(operation: store_pb2.Operation, before: Message | None, now_unix_ms: int, revision: int) -> Message:
    kind = kind_of_table(operation.table)
    assert kind is not None  # _compare refused unknown tables
    after = kind.message()
    try:
        after.ParseFromString(operation.object)
    except DecodeError:
        raise _Refusal(TransactionResult.INVALID, operation, "the object cannot be read") from None
    if isinstance(after, objects.Cluster) and isinstance(before, objects.Cluster):
        known, wanted = level(before.feature_level), level(after.feature_level)
        if wanted < known:
            raise _Refusal(
                TransactionResult.INVALID, operation, f"the cluster's feature level is {known} and never falls"
            )
    meta = meta_of(after)
    if meta.id != operation.id:
        raise _Refusal(TransactionResult.INVALID, operation, f"the object's own id is {meta.id!r}")
    meta.version = revision
    meta.created_unix_ms = meta_of(before).created_unix_ms if before is not None else now_unix_ms
    meta.updated_unix_ms = now_unix_ms
    meta.format = meta.format or 1
    return after


def _version_text(version: int) -> str:
    return f"version {version}" if version else "no version (it does not exist)"


def _key_text(key: Key) -> str:
    return "/".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
