"""The store's tables on disk: what a restart begins with, and what a person reads with sqlite3.

They follow the log by up to a second: changes gather here and are written with one of the log's
transactions, always as of one applied index. The column `text` is the object as JSON; it is filled in
when the member has nothing else to do, and is null until then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from proto import raft_pb2
from proto.objects_pb2 import Cluster
from proto.store_pb2 import TransactionResult
from raft.database import checksum, object_checksum
from raft.entry import membership_message, peers_of
from raft.errors import MemberFault
from raft.features import FEATURE_LEVEL, require
from raft.schema import KINDS, Kind, kind_of_table, meta_of
from raft.settings import Peer
from raft.store import REQUESTS_REMEMBERED_MAX, Store
from raft.table import Table
from raft.watch import Change

TEXTS_STEP_MAX = 16  # objects turned into JSON at a time, about 5 ms


@dataclass(frozen=True)
class Applied:
    """How far the stored tables are: the last entry in them, and the voters then."""

    index: int = 1
    term: int = 0
    membership: tuple[Peer, ...] = ()


class StateFile:
    """Writes the store's changes to SQLite inside the caller's transactions."""

    def __init__(self, database: sqlite3.Connection, feature_level: int = FEATURE_LEVEL) -> None:
        """`feature_level`: that this build knows."""
        self._database = database
        self._feature_level = feature_level
        self._dirty: dict[tuple[str, str], Message | None] = {}
        self._requests: list[tuple[str, TransactionResult]] = []
        self._position = 0
        self._without_text: dict[tuple[str, str], None] = {}
        self._membership_noted = False

    # ---- start --------------------------------------------------------------------------------

    def load(self, store: Store) -> Applied:
        """Fills the store; MemberFault where a row is damaged, or the cluster uses what this build does not know."""
        try:
            row = self._database.execute(
                "select applied_index, applied_term, revision, membership, crc from store_state"
            ).fetchone()
            if row is None:
                return Applied()
            index, term, revision, membership, crc = row
            if crc != checksum(index, term, revision, membership):
                raise MemberFault("the stored state's position is damaged: restore this host's state or rejoin")
            store.take_over([self._read_table(kind) for kind in KINDS], self._read_requests(), revision)
            return Applied(index, term, peers_of(raft_pb2.RaftMembership.FromString(membership)))
        except (sqlite3.Error, DecodeError) as error:
            raise MemberFault(f"the stored state cannot be read: {error}") from error

    def _read_table(self, kind: Kind) -> Table[Any]:
        found: dict[str, Message] = {}
        parse, without_text = kind.message.FromString, self._without_text
        for identifier, content, crc, text in self._database.execute(
            f"select id, object, crc, text is not null from {kind.table}"  # noqa: S608 - our own names
        ):
            if crc != object_checksum(identifier, content):
                raise MemberFault(f"{kind.table}/{identifier} is damaged on disk: restore it or rejoin")
            stored = found[identifier] = parse(content)
            if isinstance(stored, Cluster):  # the first table: before a later one is found to be unknown
                require(self._feature_level, stored.feature_level)
            if not text:
                without_text[kind.table, identifier] = None
        return Table.filled(kind, found)

    def _read_requests(self) -> Iterable[tuple[str, TransactionResult]]:
        for position, request_id, result, crc in self._database.execute(
            "select position, request_id, result, crc from requests order by position"
        ):
            if crc != checksum(position, request_id, result):
                raise MemberFault("the remembered requests are damaged on disk: restore them or rejoin")
            self._position = position
            yield request_id, TransactionResult.FromString(result)

    # ---- what happened ------------------------------------------------------------------------

    @property
    def dirty_count(self) -> int:
        """Objects and requests that the file lacks."""
        return len(self._dirty) + len(self._requests) + self._membership_noted

    @property
    def text_missing(self) -> bool:
        """Whether rows still lack their JSON."""
        return bool(self._without_text)

    def note(self, request_id: str, result: TransactionResult, changes: Iterable[Change]) -> None:
        """One transaction was applied."""
        if request_id:
            self._requests.append((request_id, result))
        for change in changes:
            self._dirty[change.table, change.id] = change.after

    def note_membership(self) -> None:
        """A change of the membership was applied."""
        self._membership_noted = True

    # ---- writing ------------------------------------------------------------------------------

    def flush(self, applied: Applied, revision: int) -> None:
        """Writes all that was noted, as of `applied`. The caller has begun the transaction."""
        written: dict[str, list[tuple[str, Message]]] = {}
        for (table, identifier), stored in self._dirty.items():
            if stored is None:
                self._database.execute(f"delete from {table} where id = ?", (identifier,))  # noqa: S608 - our own names
            else:
                written.setdefault(table, []).append((identifier, stored))
        for table, rows in written.items():  # a call for each row would cost more than all else here
            self._database.executemany(
                f"insert or replace into {table} values (?, ?, ?, ?, ?, null)",  # noqa: S608 - our own names
                (_row(identifier, stored) for identifier, stored in rows),
            )
        self._write_requests(self._requests[-REQUESTS_REMEMBERED_MAX:])
        self._database.execute("delete from requests where position <= ?", (self._position - REQUESTS_REMEMBERED_MAX,))
        self._write_position(applied, revision)

    def flushed(self) -> None:
        """The transaction of `flush` or `replace` is durable."""
        for key, stored in self._dirty.items():
            if stored is None:
                self._without_text.pop(key, None)
            else:
                self._without_text[key] = None
        self._dirty.clear()
        self._requests.clear()
        self._membership_noted = False

    def replace(self, store: Store, applied: Applied) -> None:
        """Writes the whole store in place of all rows. The caller has begun the transaction."""
        for kind in KINDS:
            self._database.execute(f"delete from {kind.table}")  # noqa: S608 - our own names
        self._database.execute("delete from requests")
        self._without_text.clear()
        self._requests.clear()
        self._dirty = {(table, meta_of(stored).id): stored for table, stored in store.objects()}
        self._write_requests(store.requests())
        self.flush(applied, store.revision)

    def write_texts(self) -> None:
        """Fills in the JSON of a few rows. The caller has begun the transaction."""
        for table, identifier in list(self._without_text)[:TEXTS_STEP_MAX]:
            row = self._database.execute(
                f"select object from {table} where id = ?",  # noqa: S608 - our own names
                (identifier,),
            ).fetchone()
            kind = kind_of_table(table)
            if row is not None and kind is not None:
                stored = kind.message()
                stored.ParseFromString(row[0])
                text = json_format.MessageToJson(stored, preserving_proto_field_name=True, indent=None)
                self._database.execute(
                    f"update {table} set text = ? where id = ?",  # noqa: S608 - our own names
                    (text, identifier),
                )
            del self._without_text[table, identifier]

    def _write_requests(self, requests: Iterable[tuple[str, TransactionResult]]) -> None:
        rows: list[tuple[int, str, bytes, int]] = []
        for request_id, result in requests:
            self._position += 1
            content = result.SerializeToString()
            rows.append((self._position, request_id, content, checksum(self._position, request_id, content)))
        self._database.executemany("insert into requests values (?, ?, ?, ?)", rows)

    def _write_position(self, applied: Applied, revision: int) -> None:
        membership = membership_message(applied.membership).SerializeToString(deterministic=True)
        self._database.execute(
            "insert or replace into store_state values (1, ?, ?, ?, ?, ?)",
            (
                applied.index,
                applied.term,
                revision,
                membership,
                checksum(applied.index, applied.term, revision, membership),
            ),
        )


def _row(identifier: str, stored: Message) -> tuple[str, str, int, bytes, int]:
    content = stored.SerializeToString()
    meta = meta_of(stored)
    return identifier, meta.name, meta.version, content, object_checksum(identifier, content)
