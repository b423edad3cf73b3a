"""PySyncObj's log, term, vote and commit index: a list in memory, and what of it is not on disk yet.

PySyncObj calls the methods of `pysyncobj.journal.Journal` while it handles a message or a tick; nothing of
that touches the disk. `flush` then writes the whole turn inside the caller's SQLite transaction, so that
entries, term and vote are durable together or not at all. Positions are PySyncObj's: 0 is the oldest
entry kept (the base, whose effects are in the store already), not the index of an entry.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, overload

from pysyncobj.journal import Journal as PySyncObjJournal

from raft.database import checksum, entry_checksum
from raft.entry import FIRST_ENTRY, Entry, membership_of
from raft.errors import MemberFault
from raft.rules import ALL_RULES, Rules
from raft.settings import Peer

COMMITS_UNSTORED_MAX = 32  # by so much the commit index on disk may trail before it is worth a page of a write
LOG_ID_BITS = 53  # what a double between 0 and 1 can tell apart


class Journal(PySyncObjJournal):  # type: ignore[misc]
    """The log of one member. Reads what the file holds; MemberFault where that is damaged."""

    def __init__(
        self,
        database: sqlite3.Connection,
        membership: tuple[Peer, ...] = (),
        rules: Rules = ALL_RULES,
        new_log_id: Callable[[], int] = lambda: 1 + secrets.randbits(LOG_ID_BITS),
    ) -> None:
        """`membership`: the voters when everything before the log was applied."""
        self._database, self._rules = database, rules
        # (index, voters): what was in force from which entry on; the last is in force now.
        self._memberships: list[tuple[int, tuple[Peer, ...]]] = [(0, membership)]
        self._entries: list[Entry] = []
        self._bytes = 0
        self._term = 0
        self._voted_for: str | None = None
        self._commit_index = 1
        self._state_dirty = False
        self._stored_commit = self._storing_commit = -COMMITS_UNSTORED_MAX  # nothing is stored
        self.log_id = 0  # of this log as long as its file lives, so that one begun anew is not taken for it
        self._log_id_stored = False
        self._stored_from = 1  # entries on disk: from this index ...
        self._stored_to = 0  # ... to this one, equal to those in memory
        self._truncated = False  # the disk holds entries that are none any more
        try:
            self._load()
            self._load_log_id(new_log_id)
        except sqlite3.Error as error:
            raise MemberFault(f"the log cannot be read: {error}") from error

    # ---- what PySyncObj calls -----------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        if self._entries and idx != self._entries[-1][1] + 1:
            raise MemberFault(f"entry {idx} was added behind {self._entries[-1][1]}")
        self._append((command, idx, term))

    def clear(self) -> None:
        raise MemberFault("PySyncObj wanted to clear the log; only a snapshot does (Journal.restart)")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        if entryFrom >= len(self._entries):
            return
        index = self._entries[entryFrom][1]
        if index <= self._commit_index:
            raise MemberFault(
                f"a leader wanted entry {index} replaced, but all to {self._commit_index} are committed: "
                "this member's log and the cluster's have forked"
            )
        self._bytes -= sum(len(entry[0]) for entry in self._entries[entryFrom:])
        del self._entries[entryFrom:]
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        self._stored_to = min(self._stored_to, index - 1)
        self._truncated = True

    def deleteEntriesTo(self, entryTo: int) -> None:
        self._bytes -= sum(len(entry[0]) for entry in self._entries[:entryTo])
        del self._entries[:entryTo]

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        # Not worth a write by itself: a restart learns it again from the leader.
        self._commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self._commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if term < self._term or (term == self._term and self._voted_for not in (None, votedForNodeId)):
            raise MemberFault(f"term {term} would take back term {self._term} or a vote given in it")
        self._state_dirty = self._state_dirty or (term, votedForNodeId) != (self._term, self._voted_for)
        self._term, self._voted_for = term, votedForNodeId

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    # ---- for the driver -----------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Index of the base, the oldest entry kept."""
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    @property
    def bytes_kept(self) -> int:
        """Length of all commands in memory."""
        return self._bytes

    @property
    def dirty(self) -> bool:
        """Whether something must be durable before anything is sent or answered."""
        return self._state_dirty or self._stored_to != self.last_index or self._truncated

    @property
    def promises_dirty(self) -> bool:
        """Whether the newest term or vote is not on disk yet."""
        return self._state_dirty

    @property
    def durable_index(self) -> int:
        """The last entry of the log that is on disk."""
        return self._stored_to

    def entries(self, from_index: int, count_max: int) -> Sequence[Entry]:
        """At most `count_max` entries from `from_index`, which is not before the base."""
        position = from_index - self.first_index
        assert position >= 0
        return self._entries[position : position + count_max]

    def term_at(self, index: int) -> int | None:
        """Term of an entry that is kept, else None."""
        position = index - self.first_index
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    @property
    def membership(self) -> tuple[Peer, ...]:
        """The voters by the newest entry, committed or not: Raft's rule for changes one at a time."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """Index of the entry that set the membership; 0 where it came with the stored state."""
        return self._memberships[-1][0]

    def membership_at(self, index: int) -> tuple[Peer, ...]:
        """The voters in force when the entry `index` was the newest."""
        return next(voters for since, voters in reversed(self._memberships) if since <= index)

    def restart(self, base_index: int, base_term: int, membership: tuple[Peer, ...]) -> None:
        """A snapshot up to the base took the place of the whole log."""
        self._memberships = [(0, membership)]
        self._entries = [(FIRST_ENTRY[0], base_index, base_term)]
        self._bytes = 1
        self._commit_index = base_index
        self._stored_from, self._stored_to = base_index, base_index - 1
        self._truncated = True

    def compact(self, to_index: int) -> None:
        """Forgets the entries before `to_index`, which becomes the base; they are in the store's tables."""
        while len(self._memberships) > 1 and self._memberships[1][0] <= to_index:
            self._memberships.pop(0)
        if to_index > self.first_index:
            self.deleteEntriesTo(to_index - self.first_index)

    def flush(self, with_commit: bool = False) -> None:
        """Writes what is new, `with_commit` the commit index too. The caller begins the transaction and commits it."""
        if self._truncated:
            self._database.execute(
                "delete from raft_log where log_index > ? or log_index < ?",
                (self._stored_to, self._stored_from),
            )
        first = max(self._stored_to + 1, self.first_index)
        self._database.executemany(
            "insert or replace into raft_log values (?, ?, ?, ?)",
            [
                (index, term, command, entry_checksum(index, term, command))
                for command, index, term in self._entries[first - self.first_index :]
            ],
        )
        if self._stored_from < self.first_index:
            self._database.execute("delete from raft_log where log_index < ?", (self.first_index,))
        if not self._log_id_stored:
            row = (self.log_id, checksum(self.log_id))
            self._database.execute("insert or replace into raft_identity values (1, ?, ?)", row)
        commit = min(self._commit_index, self.last_index)
        late = commit >= self._stored_commit + (1 if with_commit else COMMITS_UNSTORED_MAX)
        if self._state_dirty or self._truncated or late:
            self._storing_commit = commit
            self._database.execute(
                "insert or replace into raft_state values (1, ?, ?, ?, ?)",
                (self._term, self._voted_for, commit, checksum(self._term, self._voted_for, commit)),
            )

    def flushed(self) -> None:
        """The transaction of `flush` is durable."""
        self._stored_commit = self._storing_commit
        self._stored_from, self._stored_to = self.first_index, self.last_index
        self._state_dirty = self._truncated = False
        self._log_id_stored = True

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry[0])
        voters = membership_of(entry[0])
        if voters is not None:
            self._memberships.append((entry[1], voters))

    # ---- start --------------------------------------------------------------------------------

    def _load_log_id(self, new_log_id: Callable[[], int]) -> None:
        row: Any = self._database.execute("select log_id, crc from raft_identity").fetchone()
        if row is None:
            self.log_id, self._state_dirty = new_log_id(), True
            return
        self.log_id, crc = row
        self._log_id_stored = True
        if crc != checksum(self.log_id):
            raise MemberFault("the stored identity of the log is damaged: restore this host's state or rejoin")

    def _load(self) -> None:
        row: Any = self._database.execute("select term, voted_for, commit_index, crc from raft_state").fetchone()
        if row is not None:
            self._term, self._voted_for, self._commit_index, crc = row
            if crc != checksum(self._term, self._voted_for, self._commit_index):
                raise MemberFault("the stored term and vote are damaged: restore this host's state or rejoin")
            self._stored_commit = self._storing_commit = self._commit_index
        for index, term, command, crc in self._database.execute(
            "select log_index, term, command, crc from raft_log order by log_index"
        ):
            if crc != entry_checksum(index, term, command) or (self._entries and index != self.last_index + 1):
                raise MemberFault(f"log entry {index} is damaged or missing: restore this host's state or rejoin")
            self._append((command, index, term))
        if not self._entries:
            if row is not None:
                raise MemberFault("the log is missing: restore this host's state or rejoin")
            self.add(*FIRST_ENTRY)
            self._stored_from, self._stored_to = 1, 0
        else:
            self._stored_from, self._stored_to = self.first_index, self.last_index
        if self._term < self._entries[-1][2]:
            raise MemberFault("the log is ahead of the stored term: restore this host's state or rejoin")
        if self._commit_index > self.last_index and "commit-within-log" in self._rules:
            # Both were written in one transaction, so the entries were here and acknowledged.
            raise MemberFault("committed entries are missing from the log: restore this host's state or rejoin")
