"""What members say to each other, as values. The sender is known from the connection, never from these.

`term` is the sender's term, except in a rehearsal (the term that an election would have) and its answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from raft.entry import Entry


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """`rehearsal`: would you vote for me? `handed_over`: the leader itself wants this election."""

    term: int
    last_log_index: int
    last_log_term: int
    rehearsal: bool = False
    handed_over: bool = False
    log_id: int = 0  # the receiver's log that has a vote; 0: any


@dataclass(frozen=True, slots=True)
class Vote:
    """Given; a refusal is silence."""

    term: int
    rehearsal: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    """Entries that follow (previous_index, previous_term); without any it is a heartbeat."""

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    entries: tuple[Entry, ...] = ()
    round: int = 0


@dataclass(frozen=True, slots=True)
class AppendReply:
    """`success`: everything before `next_index` equals the leader's log and is durable."""

    term: int
    next_index: int
    success: bool
    reset: bool
    round: int = 0
    log_id: int = 0  # the sender's; 0: of software that has none


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The leader asks the receiver to begin an election at once."""

    term: int


@dataclass(frozen=True, slots=True)
class StaleTerm:
    """The receiver spoke with a term older than `term`."""

    term: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A piece of the stream of raft/snapshot.py."""

    term: int
    snapshot_index: int
    snapshot_term: int
    offset_bytes: int
    data: bytes
    sha256: bytes = b""
    round: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotReply:
    """The receiver lacks the stream from `offset_bytes` on."""

    term: int
    snapshot_index: int
    offset_bytes: int
    round: int = 0
    log_id: int = 0  # as in AppendReply


Message = VoteRequest | Vote | Append | AppendReply | TakeOver | StaleTerm | SnapshotChunk | SnapshotReply
