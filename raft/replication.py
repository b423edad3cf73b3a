"""Sending the log to the other members: batches within a window, or a snapshot to who is too far behind.

Takes the place of PySyncObj's own sending (raft/algorithm.py says why). Only a leader uses it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raft.algorithm import Algorithm
from raft.entry import Entry
from raft.journal import Journal
from raft.messages import Append, Message, SnapshotChunk, SnapshotReply
from raft.settings import RaftSettings
from raft.snapshot import Outgoing, Snapshot


@dataclass
class _Progress:
    """What is on its way to one member."""

    sent: deque[tuple[int, int]] = field(default_factory=deque)  # (last index, bytes) of each message
    sent_bytes: int = 0
    sent_entries: int = 0
    snapshot: Outgoing | None = None
    snapshot_sent_at: float = 0.0
    round: int = 0  # newest that it answered
    commit_sent: int = 0


class Replication:
    """A leader's sending side. `take_snapshot` returns the state as of the last applied entry."""

    def __init__(
        self,
        settings: RaftSettings,
        algorithm: Algorithm,
        journal: Journal,
        send: Callable[[str, Message], None],
        take_snapshot: Callable[[], Snapshot],
    ) -> None:
        self._settings = settings
        self._algorithm = algorithm
        self._journal = journal
        self._send = send
        self._take_snapshot = take_snapshot
        self._progress: dict[str, _Progress] = {}
        self._members: tuple[str, ...] = ()
        self.round = 1  # stamped on every message; the answer to a newer one proves leadership since then

    def set_members(self, members: Iterable[str]) -> None:
        """All other members, with a vote or without."""
        self._members = tuple(sorted(members))
        for gone in set(self._progress) - set(self._members):
            del self._progress[gone]

    def restart(self) -> None:
        """Leadership begins: nothing is on its way."""
        self._progress.clear()

    def forget_sent(self, member: str) -> None:
        """The connection to a member was lost and with it all that was on its way."""
        self._progress.pop(member, None)
        if member in self._members:
            self._algorithm.set_next_index(
                member, max(self._algorithm.match_index(member) + 1, self._journal.first_index + 1)
            )

    def round_of(self, member: str) -> int:
        """The newest round that a member answered."""
        return self._of(member).round

    def replied(self, member: str, round_: int, reset: bool, next_index: int) -> None:
        """A member answered an Append; PySyncObj has moved its indexes already."""
        progress = self._of(member)
        progress.round = max(progress.round, round_)
        if reset:
            self._clear_sent(progress)
            self._algorithm.lower_match_index(member, next_index - 1)
        matched = self._algorithm.match_index(member)
        while progress.sent and progress.sent[0][0] <= matched:
            _, size = progress.sent.popleft()
            progress.sent_bytes -= size
        progress.sent_entries = max(progress.sent[-1][0] - matched, 0) if progress.sent else 0
        if progress.snapshot is not None and matched >= progress.snapshot.index:
            progress.snapshot = None
            self._algorithm.set_next_index(member, matched + 1)
        elif progress.sent:
            # PySyncObj went back to what is acknowledged: it would send again what is on its way, and with a full
            # window ask for ever about an entry that the member has.
            self._algorithm.set_next_index(member, progress.sent[-1][0] + 1)

    def snapshot_replied(self, member: str, reply: SnapshotReply, now: float) -> None:
        """A member asks for the next piece of a snapshot, or for the first again."""
        progress = self._of(member)
        progress.round = max(progress.round, reply.round)
        if progress.snapshot is None or progress.snapshot.index != reply.snapshot_index:
            return
        if progress.snapshot.advance(reply.offset_bytes):
            self._send_piece(member, progress, now)
        elif reply.offset_bytes == 0 < progress.snapshot.piece.offset_bytes:
            self._begin_snapshot(member, progress, now)  # the receiver has lost what it had
        # Anything else is a late answer; where one is missing the timer begins again.

    def send_new(self, now: float) -> None:
        """Sends what members lack, as far as their windows allow."""
        for member in self._members:
            if self._algorithm.is_connected(member):
                self._send_entries(member, now)

    def send_heartbeats(self, now: float, commit_only: bool = False) -> None:
        """Every member gets a message; with `commit_only` those that do not know the commit index."""
        for member in self._members:
            if not self._algorithm.is_connected(member):
                continue
            progress = self._of(member)
            if commit_only and progress.commit_sent >= self._algorithm.commit_index():
                continue
            if not self._send_entries(member, now) and progress.snapshot is None:
                self._send_append(member, progress, self._algorithm.next_index(member) - 1, ())
            elif progress.snapshot is not None and not commit_only:
                # Keeps the receiver from campaigning while a long piece is under way.
                self._heartbeat_beside_snapshot(member, progress, now)

    def unsent(self) -> bool:
        """Whether a connected member was not sent all there is."""
        last = self._journal.last_index
        return any(
            self._algorithm.next_index(member) <= last
            for member in self._members
            if self._algorithm.is_connected(member)
        )

    def commit_unknown(self) -> bool:
        """Whether a connected member was not told the commit index yet."""
        commit = self._algorithm.commit_index()
        return any(
            self._of(member).commit_sent < commit for member in self._members if self._algorithm.is_connected(member)
        )

    # ---- one member ---------------------------------------------------------------------------

    def _of(self, member: str) -> _Progress:
        return self._progress.setdefault(member, _Progress())

    def _clear_sent(self, progress: _Progress) -> None:
        progress.sent.clear()
        progress.sent_bytes = progress.sent_entries = 0

    def _send_entries(self, member: str, now: float) -> bool:
        progress, sent = self._of(member), False
        if progress.snapshot is not None:
            return False
        while (
            (index := self._algorithm.next_index(member)) <= self._journal.last_index
            and progress.sent_bytes < self._settings.append_window_bytes
            and progress.sent_entries < self._settings.append_window_entries
        ):
            if index <= self._journal.first_index:
                self._begin_snapshot(member, progress, now)
                return True
            entries, size = self._batch(index)
            self._send_append(member, progress, index - 1, entries)
            last = entries[-1][1]
            progress.sent.append((last, size))
            progress.sent_bytes += size
            progress.sent_entries += len(entries)
            self._algorithm.set_next_index(member, last + 1)
            sent = True
        if self._algorithm.next_index(member) <= self._journal.first_index and not sent:
            self._begin_snapshot(member, progress, now)
            return True
        return sent

    def _batch(self, index: int) -> tuple[tuple[Entry, ...], int]:
        taken: list[Entry] = []
        size = 0
        for entry in self._journal.entries(index, self._settings.append_window_entries):
            if taken and size + len(entry[0]) > self._settings.append_bytes_max:
                break
            taken.append(entry)
            size += len(entry[0])
        return tuple(taken), size

    def _send_append(self, member: str, progress: _Progress, previous: int, entries: tuple[Entry, ...]) -> None:
        term_before = self._journal.term_at(previous)
        assert term_before is not None, f"entry {previous} is not in the log"
        commit = self._algorithm.commit_index()
        progress.commit_sent = commit
        self._send(member, Append(self._algorithm.term(), previous, term_before, commit, entries, self.round))

    def _begin_snapshot(self, member: str, progress: _Progress, now: float) -> None:
        self._clear_sent(progress)
        progress.snapshot = Outgoing(self._take_snapshot(), self._settings.snapshot_chunk_bytes)
        self._algorithm.set_next_index(member, progress.snapshot.index + 1)
        self._send_piece(member, progress, now)

    def _send_piece(self, member: str, progress: _Progress, now: float) -> None:
        assert progress.snapshot is not None
        progress.snapshot_sent_at = now
        piece = progress.snapshot.piece
        self._send(
            member,
            SnapshotChunk(
                self._algorithm.term(),
                progress.snapshot.index,
                progress.snapshot.term,
                piece.offset_bytes,
                piece.data,
                piece.sha256,
                self.round,
            ),
        )

    def _heartbeat_beside_snapshot(self, member: str, progress: _Progress, now: float) -> None:
        if now - progress.snapshot_sent_at > self._settings.snapshot_resend_ms / 1000:
            self._begin_snapshot(member, progress, now)
            return
        # The base is committed, so comparing with it can never send the receiver astray.
        self._send_append(member, progress, self._journal.first_index, ())
