"""A member's disk: SQLite that keeps what was committed, with faults at any statement.

The state is a real SQLite database in memory: what a power cut leaves of it is what was committed, since
SQLite's transactions are atomic (file_disk.py shows that for torn files). Where the cut or an error hits a
commit itself, the transaction may be there afterwards or not; the schedule says which.
"""

from __future__ import annotations

import functools
import random
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from raft.database import open_database
from raft.entry import membership_command
from raft.journal import Journal
from raft.settings import Peer

FIRST_TERM = 1
SUMMED = {
    "raft_log": "command",
    "raft_state": "voted_for",
    "store_state": "membership",
    "requests": "result",
    "tenants": "object",
}


class PowerCut(Exception):
    """The machine went dark in the middle of a write."""


@dataclass
class Disk:
    """Faults are set by whoever simulates; `database` is given to a driver."""

    content: bytes
    full: bool = False
    error_next: bool = False  # the next commit fails
    cut_in_statements: int = 0  # the power goes at this statement from now; 0: not
    kept: bool = False  # whether the commit that was hit got to the disk
    broken: bool = False  # an error was reported: the member may stop
    writes: int = 0
    torn: int = 0  # cuts that left some sectors of a write old and some new
    cut_at: str = ""  # the statement that the power went at
    _connection: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        self._connection = _in_memory(self.content)

    @property
    def database(self) -> sqlite3.Connection:
        """What a driver opens."""
        return cast(sqlite3.Connection, self)

    def lose_power(self) -> None:
        """What was not committed is gone."""
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        self.broken = self.error_next = False
        self.cut_in_statements, self.cut_at = 0, ""

    def lose_all(self) -> None:
        """An empty disk is in its place."""
        self._connection.close()
        self._connection = _in_memory(formed(0))
        self.lose_power()

    def close(self) -> None:
        self._connection.close()

    def log(self) -> dict[int, int]:
        """Terms by index of the entries that a restart would find."""
        return dict(self._connection.execute("select log_index, term from raft_log"))

    def rotten(self, dice: random.Random, cut_off: bool) -> sqlite3.Connection | None:
        """A copy in which something that was durable is damaged or, with `cut_off`, missing; None for nothing."""
        copy = _in_memory(self._connection.serialize())
        state = copy.execute("select commit_index from raft_state").fetchone()
        applied = copy.execute("select applied_index from store_state").fetchone()
        if state is not None and cut_off:
            lowest = applied[0] if applied is not None else 1
            if lowest < state[0]:
                copy.execute("delete from raft_log where log_index > ?", (dice.randrange(lowest, state[0]),))
                return copy
        table = dice.choice(sorted(SUMMED))
        rows = copy.execute(f"select rowid, crc from {table}" if table != "tenants" else "select id, crc from tenants")  # noqa: S608
        found = rows.fetchall()
        if not found:
            copy.close()
            return None
        key, crc = dice.choice(found)
        column = "id" if table == "tenants" else "rowid"
        if dice.random() < 0.5:
            copy.execute(f"update {table} set crc = ? where {column} = ?", (crc ^ 1 << dice.randrange(32), key))  # noqa: S608
        else:
            blob = SUMMED[table]
            copy.execute(
                f"update {table} set {blob} = coalesce({blob}, 'x') || 'x' where {column} = ?"  # noqa: S608
                if table == "raft_state"
                else f"update {table} set {blob} = cast({blob} || x'00' as blob) where {column} = ?",  # noqa: S608
                (key,),
            )
        return copy

    # ---- what a driver calls ------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        self._before(sql)
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        self._before(sql)
        return self._connection.executemany(sql, parameters)

    def _before(self, sql: str) -> None:
        if sql.startswith("select"):
            return
        self.writes += sql == "commit"
        if self.cut_in_statements:
            self.cut_in_statements -= 1
            if self.cut_in_statements == 0:
                self.cut_at = sql.split(" ")[0] + (" that got to the disk" if sql == "commit" and self.kept else "")
                self._cut(sql)
                raise PowerCut
        if self.full and sql != "rollback":
            self.broken = True
            raise _error("database or disk is full", sqlite3.SQLITE_FULL)
        if self.error_next and sql == "commit":
            self.error_next, self.broken = False, True
            self._connection.execute("commit" if self.kept else "rollback")
            raise _error("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)

    def _cut(self, sql: str) -> None:
        if sql == "commit" and self.kept:
            self._connection.execute(sql)


def _error(text: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def _in_memory(content: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    # Bytes 18 and 19 of the header: no write-ahead log, which a database in memory cannot have.
    connection.deserialize(content[:18] + b"\1\1" + content[20:])
    return connection


@functools.cache
def formed(voters: int, name: str = "a") -> bytes:
    """The disk of a member of a cluster that was formed by members "a", "b", ...: 0 for one that has no log yet."""
    database = open_database(":memory:")
    if voters:
        form(database, voters, name)
    return database.serialize()


def form(database: sqlite3.Connection, voters: int, name: str = "a") -> None:
    """Writes the log that all members of a new cluster share."""
    journal = Journal(database, new_log_id=lambda: ord(name))
    journal.setCurrentTerm(FIRST_TERM, None)
    journal.add(membership_command(peers("abcdefg"[:voters])), 2, FIRST_TERM)
    journal.setRaftCommitIndex(2)
    database.execute("begin")
    journal.flush()
    database.execute("commit")


def peers(names: Iterable[str]) -> tuple[Peer, ...]:
    """The members that form a cluster as its log names them; nobody dials these addresses."""
    return tuple(Peer(name, "", 1, ord(name)) for name in names)


NOWHERE = Path("/nowhere")
