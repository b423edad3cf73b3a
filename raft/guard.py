"""What of an incoming message PySyncObj gets to see: a pure function that stands in front of it.

PySyncObj 0.3.17 acts on any message that looks right. By itself it counts a vote twice and a stranger's
at all, takes acknowledgements of another term, cuts matching entries off its log when an old message
arrives late, commits what it never compared with the leader's log, and lets any candidate depose a live
leader. `examine` drops, trims or rewrites a message so that none of that can happen, and answers itself
what PySyncObj would leave unanswered (a repeated vote request, a leader of an old term, a rehearsal for a
term in which the vote is given away).

The invariants that it keeps, each tested in tests/raft/test_guard.py:

- an entry that equals the leader's is never removed; a committed one never, or the member stops;
- the commit index never passes the newest entry that was compared with the leader of this term;
- a success is acknowledged only up to an entry so compared, and believed only in the leader's own term;
- one vote a member and term, and only members' votes count;
- a member whose log was lost has forgotten what it promised: it counts for nothing until its vote was taken;
- while a live leader is heard no candidate is listened to, unless that leader asked for the election.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from raft.entry import Entry
from raft.errors import MemberFault
from raft.messages import (
    Append,
    AppendReply,
    Message,
    SnapshotChunk,
    SnapshotReply,
    StaleTerm,
    TakeOver,
    Vote,
    VoteRequest,
)
from raft.rules import ALL_RULES, Rules

PySyncObjMessage = dict[str, Any]


class Log(Protocol):
    """What the guard reads of the log (raft/journal.py)."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def term_at(self, index: int) -> int | None: ...


@dataclass(slots=True)  # not frozen: one is made for every message, and that would cost thrice as much
class View:
    """The member's state at the moment a message arrives."""

    me: str
    role: Literal["leader", "candidate", "follower"]
    term: int
    voted_for: str | None
    leader_id: str | None
    leader_alive: bool  # a leader was heard within the shortest election time, or it leads with a majority
    voters: Collection[str]
    learners: Collection[str]  # members without a vote that this leader replicates to
    votes: Collection[str]  # who voted for it in this term
    rehearsal_votes: Collection[str] | None  # who would vote for it; None while it does not ask
    commit_index: int
    log: Log
    log_id: int = 0
    log_ids: Mapping[str, int] = field(default_factory=dict)  # of the voters, by the membership; 0: any
    rules: Rules = ALL_RULES  # raft/rules.py


@dataclass(frozen=True)
class Verdict:
    """What to do with a message: hand `deliver` to PySyncObj, send `replies`, and what it meant."""

    deliver: PySyncObjMessage | None = None
    replies: tuple[Message, ...] = ()
    from_leader: bool = False  # a live leader of this or a newer term spoke
    vote: bool = False  # a vote that counts
    rehearsal_vote: bool = False
    reply_accepted: bool = False  # an answer to this leader in its own term
    newer_term: int = 0  # step down to this term
    lost_log: bool = False  # a voter's disk is not the one that the vote was given to
    dropped: str = ""  # why nothing came of it, for the log


def examine(view: View, sender: str, message: Message) -> Verdict:
    """Judges one message. MemberFault where obeying it would fork committed state."""
    match message:
        case Append():
            return _append(view, sender, message)
        case AppendReply() | SnapshotReply():
            return _reply(view, sender, message)
        case VoteRequest():
            return _vote_request(view, sender, message)
        case Vote():
            return _vote(view, sender, message)
        case TakeOver():
            if sender != view.leader_id or message.term != view.term or not has_vote(view):
                return Verdict(dropped="only the present leader hands over, and only to a voter")
            return Verdict(deliver={"type": "timeout_now", "term": message.term})
        case StaleTerm():
            if message.term <= view.term or sender not in {*view.voters, *view.learners}:
                return Verdict(dropped="no newer term, or a stranger's")
            return Verdict(newer_term=message.term)
        case SnapshotChunk():
            refused = _not_from_leader(view, sender, message.term)
            if refused is not None:
                return refused
            commit = view.commit_index if "commit-only-verified" in view.rules else message.snapshot_index
            return Verdict(deliver=_heartbeat(message.term, commit), from_leader=True)


def is_up_to_date(view: View, last_log_index: int, last_log_term: int) -> bool:
    """Whether a candidate's log may replace the member's (Raft, section 5.4.1)."""
    own_term = view.log.term_at(view.log.last_index)
    assert own_term is not None
    return (last_log_term, last_log_index) >= (own_term, view.log.last_index)


def has_vote(view: View) -> bool:
    """Whether the membership gives this member a vote, and means the log that it has now."""
    return view.me in view.voters and _is_its_log(view, view.log_ids.get(view.me, 0), view.log_id)


def _is_its_log(view: View, wanted: int, found: int) -> bool:
    return wanted in (0, found) or "vote-of-its-log" not in view.rules


def _vote_request(view: View, sender: str, request: VoteRequest) -> Verdict:
    if view.leader_alive and not request.handed_over and "keep-live-leader" in view.rules:
        return Verdict(dropped="a live leader is heard")
    if request.term < view.term:
        return Verdict(replies=_stale(view), dropped="an older term")
    if not view.voters and "newcomers-do-not-vote" in view.rules:
        # It was never given the cluster's log, or has lost its disk: it may have voted in this term before.
        return Verdict(dropped="this member knows no membership yet")
    if not _is_its_log(view, request.log_id, view.log_id):
        return Verdict(dropped="the vote is that of a log which this member has lost")
    free = request.term > view.term or view.voted_for in (None, sender)
    willing = free and is_up_to_date(view, request.last_log_index, request.last_log_term)
    if request.rehearsal:
        if willing:
            return Verdict(replies=(Vote(request.term, rehearsal=True),))
        # Who rehearses is in the term before. Where the vote of this one is given away it would ask for it for ever.
        return Verdict(replies=() if free else _stale(view), dropped="would not vote for it")
    if request.term == view.term and view.voted_for == sender and "repeat-votes" in view.rules:
        return Verdict(replies=(Vote(request.term),))  # it asks again: the first answer was lost
    return Verdict(
        deliver={
            "type": "request_vote",
            "term": request.term,
            "last_log_index": request.last_log_index,
            "last_log_term": request.last_log_term,
        }
    )


def _vote(view: View, sender: str, vote: Vote) -> Verdict:
    if sender not in view.voters and "members-only" in view.rules:
        return Verdict(dropped="a vote of somebody without one")
    if vote.rehearsal:
        counts = view.rehearsal_votes is not None and vote.term == view.term + 1
        return Verdict(rehearsal_vote=counts, dropped="" if counts else "not asked for")
    again = sender in view.votes and "count-votes-once" in view.rules
    if view.role != "candidate" or vote.term != view.term or again:
        return Verdict(dropped="not asked for, or counted already")
    return Verdict(deliver={"type": "response_vote", "term": vote.term}, vote=True)


def _reply(view: View, sender: str, reply: AppendReply | SnapshotReply) -> Verdict:
    if view.role != "leader" or (reply.term != view.term and "fence-acks-by-term" in view.rules):
        return Verdict(dropped="an acknowledgement of another term")
    if sender not in view.voters and sender not in view.learners:
        return Verdict(dropped="an acknowledgement of a stranger")
    if not _is_its_log(view, view.log_ids.get(sender, 0), reply.log_id):
        return Verdict(dropped="an acknowledgement of a log that began anew", lost_log=True)
    if isinstance(reply, SnapshotReply):
        return Verdict(reply_accepted=True)
    if not 1 <= reply.next_index <= view.log.last_index + 1:
        return Verdict(dropped="it acknowledges what this leader never had")
    return Verdict(
        deliver={
            "type": "next_node_idx",
            "next_node_idx": reply.next_index,
            "reset": reply.reset,
            "success": reply.success,
        },
        reply_accepted=True,
    )


def _not_from_leader(view: View, sender: str, term: int) -> Verdict | None:
    if term < view.term:
        return Verdict(replies=_stale(view), dropped="a leader of an older term")
    if term == view.term and (view.role == "leader" or view.leader_id not in (None, sender)):
        return Verdict(dropped="a second leader of the same term")
    return None


def _stale(view: View) -> tuple[Message, ...]:
    return (StaleTerm(view.term),) if "answer-old-terms" in view.rules else ()


def _append(view: View, sender: str, append: Append) -> Verdict:
    refused = _not_from_leader(view, sender, append.term)
    if refused is not None:
        return refused
    if "keep-matching-entries" not in view.rules and append.previous_index >= view.log.first_index:
        return _as_it_came(append)
    log, previous, entries = view.log, append.previous_index, append.entries
    if previous < log.first_index:
        # Everything up to the base is applied, so it equals the leader's log; only the rest is of use.
        entries = tuple(entry for entry in entries if entry[1] > log.first_index)
        previous = log.first_index
    elif log.term_at(previous) != append.previous_term:
        return _mismatch(view, append)
    verified, fresh = _compare(log, previous, entries)
    if not fresh:
        # PySyncObj would cut off all that follows `previous`, acknowledged entries included.
        return Verdict(
            deliver=_heartbeat(append.term, max(view.commit_index, _verified_commit(view, append, verified))),
            replies=(AppendReply(append.term, verified + 1, True, False, append.round, view.log_id),),
            from_leader=True,
        )
    if verified < view.commit_index:
        raise MemberFault(
            f"{sender}, leader of term {append.term}, has another entry {verified + 1} than this member, "
            f"which has committed everything to {view.commit_index}: the cluster's state has forked"
        )
    return Verdict(
        deliver={
            "type": "append_entries",
            "term": append.term,
            "commit_index": append.commit_index,
            "entries": list(fresh),
            "prevLogIdx": verified,
            "prevLogTerm": log.term_at(verified),
        },
        from_leader=True,
    )


def _verified_commit(view: View, append: Append, verified: int) -> int:
    return min(append.commit_index, verified) if "commit-only-verified" in view.rules else append.commit_index


def _as_it_came(append: Append) -> Verdict:
    """What PySyncObj does without the guard: cuts its log behind `previous`, whatever follows there."""
    message = {
        "type": "append_entries",
        "term": append.term,
        "commit_index": append.commit_index,
        "entries": list(append.entries),
        "prevLogIdx": append.previous_index,
        "prevLogTerm": append.previous_term,
    }
    return Verdict(deliver=message, from_leader=True)


def _compare(log: Log, previous: int, entries: tuple[Entry, ...]) -> tuple[int, tuple[Entry, ...]]:
    """The newest index that equals the leader's log, and the entries that follow it."""
    count = 0
    while count < len(entries) and log.term_at(entries[count][1]) == entries[count][2]:
        count += 1
    return (entries[count - 1][1] if count else previous), entries[count:]


def _mismatch(view: View, append: Append) -> Verdict:
    log = view.log
    if append.previous_index <= view.commit_index:
        raise MemberFault(
            f"the leader of term {append.term} has another entry {append.previous_index} than this member, "
            f"which has committed everything to {view.commit_index}: the cluster's state has forked"
        )
    if append.previous_index > log.last_index:
        wanted = log.last_index + 1
    else:
        # Skip the whole run of entries of the conflicting term at once, not one a message.
        wanted, term = append.previous_index, log.term_at(append.previous_index)
        while wanted - 1 > view.commit_index and log.term_at(wanted - 1) == term:
            wanted -= 1
    return Verdict(
        deliver=_heartbeat(append.term, max(view.commit_index, _verified_commit(view, append, view.commit_index))),
        replies=(AppendReply(append.term, wanted, False, True, append.round, view.log_id),),
        from_leader=True,
    )


def _heartbeat(term: int, commit_index: int) -> PySyncObjMessage:
    """An append that makes PySyncObj follow the leader and touches neither log nor anything unverified."""
    return {"type": "append_entries", "term": term, "commit_index": commit_index, "serialized": None}
