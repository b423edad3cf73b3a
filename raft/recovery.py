"""A member's state while the member does not run: read it for a plan, or begin anew with it as the only voter.

Both disasters end the same way. After a majority was lost for good (`fairway recover`), or from a backup
(`fairway restore`), a state is written as the base of a new log whose only voter is this member:

- its index is at least the time in milliseconds, so that it is above every index that lost members may have
  reached, and revisions never go back, whatever hosts were told by them (a cluster would have to commit a
  thousand entries a second all its life to get there by itself);
- its term is at least the time in seconds, above every term of theirs for the same reason. So a lost member
  that turns up again follows the new leader, takes its snapshot, and cannot depose it. What it had committed
  beyond this state is gone. The same holds among several disasters of one cluster.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.message import DecodeError

from proto.store_pb2 import Transaction
from raft.database import FILE_NAME, open_database
from raft.entry import TRANSACTION
from raft.errors import MemberFault
from raft.features import FEATURE_LEVEL, require
from raft.journal import Journal
from raft.settings import Peer
from raft.state_file import Applied, StateFile
from raft.store import Store
from raft.transaction import TRANSACTION_FORMAT
from raft.wal_check import check_wal

INDEX_STEP = 1_000_000  # at least, above what is known; for a clock that is wrong
TERM_STEP = 1_000


@dataclass(frozen=True)
class StoredMember:
    """What a member has on disk; `store` with every entry of its log applied, committed or not.

    Uncommitted entries are kept: one of them may have been committed by members that are lost now, and
    acknowledged to a client. That nothing acknowledged which this member holds is lost weighs more than
    that nothing unacknowledged happens.
    """

    store: Store
    membership: tuple[Peer, ...]
    term: int
    last_index: int
    commit_index: int  # known to be committed when it was last written

    @property
    def unconfirmed_entries(self) -> int:
        """Entries that this member does not know to be committed."""
        return self.last_index - self.commit_index


def read_member(state_folder: Path) -> StoredMember:
    """Reads a copy, so the member may run. MemberFault where its state is damaged or missing."""
    path = state_folder / FILE_NAME
    check_wal(path)
    memory = open_database(":memory:")
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            source.backup(memory)
        finally:
            source.close()
        return _read(memory)
    except sqlite3.Error as error:
        raise MemberFault(f"the cluster's state in {path} cannot be read: {error}") from error
    finally:
        memory.close()


def keep_copy(state_folder: Path, into: Path) -> None:
    """Copies the member's file as it is now to the folder `into`. MemberFault; OSError."""
    into.mkdir(mode=0o700, parents=True)
    try:
        source = sqlite3.connect(f"{(state_folder / FILE_NAME).absolute().as_uri()}?mode=ro", uri=True)
        copy = open_database(into / FILE_NAME)
        try:
            source.backup(copy)
        finally:
            copy.close()
            source.close()
    except sqlite3.Error as error:
        raise MemberFault(f"the cluster's state in {state_folder} cannot be copied: {error}") from error


def begin_anew(state_folder: Path, me: Peer, store: Store, last_index: int, term: int, now_unix_ms: int) -> None:
    """Makes `store` the base of a new log in which `me` alone votes; in one transaction, so all or nothing.

    `last_index`, `term`: the highest that are known of the log which the state comes from. No member may
    run in `state_folder`. MemberFault where it cannot be written.
    """
    index = max(last_index + INDEX_STEP, store.revision + INDEX_STEP, now_unix_ms)
    database = open_database(state_folder / FILE_NAME)
    try:
        state_file, journal = StateFile(database), Journal(database)
        me = replace(me, log_id=journal.log_id)
        term = max(term + TERM_STEP, journal.getCurrentTerm() + TERM_STEP, now_unix_ms // 1000)
        journal.setCurrentTerm(term, me.node_id)
        journal.restart(index, term, (me,))
        database.execute("begin immediate")
        try:
            journal.flush()
            state_file.replace(store, Applied(index, term, (me,)))
            database.execute("commit")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("rollback")
            raise
    except sqlite3.Error as error:
        raise MemberFault(f"the new state cannot be written to {state_folder}: {error}") from error
    finally:
        database.close()


def _read(database: sqlite3.Connection) -> StoredMember:
    store = Store()
    applied = StateFile(database).load(store)
    journal = Journal(database, applied.membership)
    if not journal.membership:
        raise MemberFault("this host was never given the cluster's state: recover on a host that had a vote")
    if not journal.first_index <= applied.index <= journal.last_index:
        raise MemberFault("log and tables do not fit together: restore this host's state or rejoin")
    for command, index, _ in journal.entries(applied.index + 1, journal.last_index - applied.index):
        if command[0] == TRANSACTION:
            _apply(store, command, index)
    return StoredMember(
        store, journal.membership, journal.getCurrentTerm(), journal.last_index, journal.getRaftCommitIndex()
    )


def _apply(store: Store, command: bytes, index: int) -> None:
    try:
        transaction = Transaction.FromString(command[1:])
    except DecodeError:
        return  # as every member passes over it (raft/driver.py)
    if transaction.format > TRANSACTION_FORMAT:
        raise MemberFault(f"log entry {index} is of a newer version: start the newer software")
    require(FEATURE_LEVEL, transaction.feature_level)
    store.apply(transaction, index)
