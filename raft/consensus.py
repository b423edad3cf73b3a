"""One member's consensus: the guard, PySyncObj behind it, rehearsed elections, replication, snapshots.

No I/O, no clock, no randomness of its own: `deliver` and `tick` get the time, messages to send gather in
`outbox`, and whoever drives it (raft/driver.py, or a simulator) makes the journal durable before it sends
any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from raft.algorithm import LONG_AGO, Algorithm
from raft.ambient import ambient
from raft.errors import MemberFault
from raft.guard import PySyncObjMessage, View, examine, has_vote
from raft.journal import Journal
from raft.messages import (
    Append,
    AppendReply,
    Message,
    SnapshotChunk,
    SnapshotReply,
    TakeOver,
    Vote,
    VoteRequest,
)
from raft.replication import Replication
from raft.rules import ALL_RULES, Rules
from raft.settings import Peer, RaftSettings
from raft.snapshot import Incoming, Piece, Snapshot
from raft.status import Role

log = logging.getLogger(__name__)

TIMER_GRAIN_SECONDS = 0.001  # PySyncObj's timers are due when they have passed, not when they are reached


class Consensus:
    """`take_snapshot` makes a snapshot of what is applied, `install` puts one into store and journal."""

    def __init__(
        self,
        settings: RaftSettings,
        journal: Journal,
        applied_index: int,
        now: float,
        random: Callable[[], float],
        take_snapshot: Callable[[], Snapshot],
        install: Callable[[Snapshot], None],
        rules: Rules = ALL_RULES,
    ) -> None:
        self.outbox: list[tuple[str, Message]] = []
        self.learners: dict[str, Peer] = {}
        self._settings, self._journal, self._random, self._install = settings, journal, random, install
        self._me, self._rules = settings.node_id, rules
        with ambient(now, random):
            self.algorithm = Algorithm(settings, journal, applied_index, self._send_of_pysyncobj)
        self.replication = Replication(settings, self.algorithm, journal, self._send, take_snapshot)
        self.algorithm.on_replicate(self._replicate)
        self._now = now
        self._membership: tuple[Peer, ...] | None = None
        self._voters: frozenset[str] = frozenset()
        self.log_ids: dict[str, int] = {}  # the logs that have the votes
        self._has_vote = False
        self.learner_logs: dict[str, int] = {}  # whose acknowledgements this leader has of members without a vote
        self.lost_logs: frozenset[str] = frozenset()  # voters that this leader found to have begun anew
        self.leader_heard_at = LONG_AGO
        self.heard_at: dict[str, float] = {}
        self._votes: tuple[int, set[str]] = (0, set())
        self._rehearsal: set[str] | None = None  # who would vote for it, while it asks
        self._rehearsal_won = False
        self._campaign_handed_over = False
        self._led_term = 0
        self._round_received = 0
        self._incoming: Incoming | None = None
        self._commit_notice_at: float | None = None
        self.snapshots_refused = 0
        self._refresh_members()
        if self._alone:
            self._rehearsal_won = True  # nobody else could win

    # ---- state --------------------------------------------------------------------------------

    @property
    def voters(self) -> frozenset[str]:
        return self._voters

    @property
    def leads(self) -> bool:
        return self.algorithm.leads()

    @property
    def _alone(self) -> bool:
        return self._has_vote and len(self._voters) == 1

    def role(self) -> Role:
        if not self._has_vote:
            return "learner"
        role: Role = self.algorithm.role()
        return role

    def majority(self, members: set[str]) -> bool:
        """Whether these (of whom only voters count) are more than half of the voters."""
        return 2 * len(members & self._voters) > len(self._voters)

    def quorum(self, now: float) -> bool:
        """It leads and hears a majority, or it follows a leader that it hears."""
        since = now - self._settings.election_ms_min / 1000
        if self.leads:
            heard = {one for one in self._voters if self.algorithm.heard_at(one) > since}
            return self.majority(heard | {self._me})
        return self.algorithm.leader_id() is not None and self.leader_heard_at > since

    def confirmed(self, round_: int) -> bool:
        """Whether a majority answered a message of this round, sent by this leader."""
        answered = {one for one in self._voters if self.replication.round_of(one) >= round_}
        return self.majority(answered | {self._me})

    def may_go_on(self) -> bool:
        """Whether what was delivered lets this leader commit or send more: then a `tick` is due at once."""
        if not self.leads:
            return False
        commit, last = self.algorithm.commit_index(), self._journal.last_index
        if commit < last:
            matched = {one for one in self._voters if self.algorithm.match_index(one) > commit}
            if self.majority(matched | {self._me}):
                return True
        return self.replication.unsent()

    def wake_at(self, now: float) -> float:
        """When `tick` has something to do, if nothing happens before; infinity: never by itself."""
        if not self.leads:
            if self._rehearsal_won:
                return now
            due = self.algorithm.election_at()
            if self.quorum(now):
                due = min(due, self.leader_heard_at + self._settings.election_ms_min / 1000)
            return due + TIMER_GRAIN_SECONDS
        if self._voters == {self._me} and not self.learners:
            return float("inf")
        due = self.algorithm.heartbeat_at() + TIMER_GRAIN_SECONDS
        return min(due, self._commit_notice_at) if self._commit_notice_at is not None else due

    # ---- input --------------------------------------------------------------------------------

    def connected(self, member: str, up: bool) -> None:
        """The way to a member opened, or broke and lost what was on it."""
        self.algorithm.connected(member, up)
        if self.leads:
            self.replication.forget_sent(member)

    def deliver(self, sender: str, message: Message, now: float) -> None:
        """One message of an authenticated member. MemberFault where it shows that the state has forked."""
        self._now = now
        verdict = examine(self._view(now, isinstance(message, VoteRequest)), sender, message)
        if verdict.dropped:
            log.debug("%s from %s dropped: %s", type(message).__name__, sender, verdict.dropped)
        self.heard_at[sender] = now
        if verdict.lost_log and sender not in self.lost_logs:
            log.warning("%s has lost its log: it has no part in votes until it was removed and added again", sender)
            self.lost_logs |= {sender}
        elif verdict.reply_accepted and sender in self.lost_logs:
            self.lost_logs -= {sender}  # its log answers: what said otherwise was a late message of an earlier log
        if verdict.newer_term:
            self.algorithm.step_down(verdict.newer_term)
        if verdict.from_leader:
            self.leader_heard_at, self._rehearsal, self._rehearsal_won = now, None, False
        if verdict.reply_accepted and isinstance(message, AppendReply | SnapshotReply):
            self._note_log(sender, message.log_id)
        if verdict.deliver is not None:
            self._round_received = message.round if isinstance(message, Append) else 0
            with ambient(now, self._random):
                if verdict.vote:
                    self._votes[1].add(sender)
                self.algorithm.receive(sender, verdict.deliver)
        if verdict.rehearsal_vote:
            self._rehearsed(sender)
        for reply in verdict.replies:
            self._send(sender, reply)
        if verdict.reply_accepted:
            self._acknowledged(sender, message, now)
        if verdict.from_leader and isinstance(message, SnapshotChunk):
            self._snapshot_chunk(sender, message)
        self._refresh_members()

    def tick(self, now: float) -> None:
        """Timers: elections, heartbeats, commits; sends what members lack."""
        self._now = now
        if self._rehearsal_won and not self.leads:
            self.algorithm.campaign()
        elif not self.leads and self.algorithm.election_at() <= now:
            self._election_due(now)
        self._rehearsal_won = False
        if self.leads or self.algorithm.election_at() < now:  # else there is nothing for it
            with ambient(now, self._random):
                self.algorithm.doTick(0)
        self._refresh_members()
        if self.leads:
            self.replication.send_new(now)
            self._notice_commit(now)
        else:
            self._commit_notice_at = None
            if self.learners:
                self.learners.clear()
                self._membership = None
                self._refresh_members()

    def append(self, command: bytes) -> int:
        """Adds a command to this leader's log; returns its index."""
        assert self.leads
        index = self.algorithm.append(command)
        self._refresh_members()
        return index

    def set_learner(self, peer: Peer, wanted: bool) -> None:
        """This leader sends its log to a member that has no vote yet, or no longer does."""
        if wanted:
            self.learners[peer.node_id] = peer
        else:
            self.learners.pop(peer.node_id, None)
        self._membership = None
        self._refresh_members()

    def hand_over(self, member: str) -> bool:
        """Asks a voter that has the whole log to campaign at once; False where it has not."""
        if not self.leads or self.algorithm.match_index(member) != self._journal.last_index:
            return False
        self._send(member, TakeOver(self.algorithm.term()))
        return True

    def new_round(self, now: float) -> int:
        """Sends a message to every member; whoever answers confirms that this member still leads."""
        self.replication.round += 1
        self.replication.send_heartbeats(now)
        return self.replication.round

    # ---- elections ----------------------------------------------------------------------------

    def _election_due(self, now: float) -> None:
        with ambient(now, self._random):
            self.algorithm.postpone_election(now)
        self.algorithm.forget_leader()
        self._rehearsal = None
        if not self._has_vote:
            return
        self._campaign_handed_over = self.algorithm.handed_over()
        if self._campaign_handed_over or self._alone or "rehearse-elections" not in self._rules:
            self.algorithm.campaign()
            return
        self._rehearsal = {self._me}
        last = self._journal.last_index
        last_term = self._journal.term_at(last) or 0
        for member in sorted(self._voters - {self._me}):
            request = VoteRequest(self.algorithm.term() + 1, last, last_term, True, False, self.log_ids[member])
            self._send(member, request)

    def _rehearsed(self, sender: str) -> None:
        assert self._rehearsal is not None
        self._rehearsal.add(sender)
        if self.majority(self._rehearsal):
            self._rehearsal, self._rehearsal_won = None, True

    # ---- answers and snapshots ----------------------------------------------------------------

    def _note_log(self, sender: str, log_id: int) -> None:
        """What a member without a vote acknowledged before its log began anew counts no more."""
        if sender in self.learners and self.learner_logs.get(sender) != log_id:
            self.learner_logs[sender] = log_id
            self.algorithm.lower_match_index(sender, 0)

    def _acknowledged(self, sender: str, message: Message, now: float) -> None:
        if isinstance(message, AppendReply):
            self.replication.replied(sender, message.round, message.reset, message.next_index)
        elif isinstance(message, SnapshotReply):
            self.algorithm.heard(sender, now)
            self.replication.snapshot_replied(sender, message, now)

    def _snapshot_chunk(self, sender: str, chunk: SnapshotChunk) -> None:
        have = self._journal.term_at(chunk.snapshot_index) == chunk.snapshot_term
        if have or chunk.snapshot_index <= self.algorithm.commit_index():
            # Its log holds all of that: cutting it off would take back what it acknowledged.
            self.algorithm.committed(chunk.snapshot_index)
            self._incoming = None
            self._snapshot_done(sender, chunk)
            return
        of = (chunk.snapshot_index, chunk.snapshot_term)
        if self._incoming is None or (self._incoming.index, self._incoming.term) != of:
            settings = self._settings
            in_order = "pieces-in-order" in self._rules
            self._incoming = Incoming(*of, settings.snapshot_bytes_max, in_order, settings.feature_level)
        try:
            taken = self._incoming.add(Piece(chunk.offset_bytes, chunk.data, chunk.sha256))
            if taken and chunk.sha256:
                snapshot = self._incoming.finish(chunk.sha256)
                self._incoming = None
                self._install(snapshot)
                self.algorithm.restarted(snapshot.index)
                self._snapshot_done(sender, chunk)
                return
        except ValueError as error:
            # Never acknowledged: the leader sends it again from the start.
            log.error("a snapshot from %s is refused: %s", sender, error)
            self.snapshots_refused += 1
            self._incoming = None
            if "refuse-bad-snapshots" not in self._rules:
                self._snapshot_done(sender, chunk)
                return
        wanted = self._incoming.offset_bytes if self._incoming is not None else 0
        self._send(
            sender,
            SnapshotReply(self.algorithm.term(), chunk.snapshot_index, wanted, chunk.round, self._journal.log_id),
        )

    def _snapshot_done(self, sender: str, chunk: SnapshotChunk) -> None:
        term, next_index = self.algorithm.term(), chunk.snapshot_index + 1
        reply = AppendReply(term, next_index, True, False, chunk.round, self._journal.log_id)
        self._send(sender, reply)

    # ---- output -------------------------------------------------------------------------------

    def _send(self, member: str, message: Message) -> None:
        self.outbox.append((member, message))

    def _send_of_pysyncobj(self, member: str, message: PySyncObjMessage) -> None:
        match message["type"]:
            case "request_vote":
                self._votes = (message["term"], {self._me})
                self._send(
                    member,
                    VoteRequest(
                        message["term"],
                        message["last_log_index"],
                        message["last_log_term"],
                        handed_over=self._campaign_handed_over,
                        log_id=self.log_ids.get(member, 0),
                    ),
                )
            case "response_vote":
                self._send(member, Vote(message["term"]))
            case "next_node_idx":
                index, success, reset = message["next_node_idx"], message["success"], message["reset"]
                term, round_ = self.algorithm.term(), self._round_received
                self._send(member, AppendReply(term, index, success, reset, round_, self._journal.log_id))
            case kind:
                raise MemberFault(f"PySyncObj wanted to send a message of type {kind!r}")

    def _replicate(self) -> None:
        if self._led_term != self.algorithm.term():
            self._led_term = self.algorithm.term()
            self.replication.restart()
        self.replication.send_heartbeats(self._now)

    def _notice_commit(self, now: float) -> None:
        if not self.replication.commit_unknown():
            self._commit_notice_at = None
        elif self._commit_notice_at is None:
            self._commit_notice_at = now + self._settings.commit_notice_ms / 1000
        elif self._commit_notice_at <= now:
            self.replication.send_heartbeats(now, commit_only=True)
            self._commit_notice_at = None

    # ---- members and view ---------------------------------------------------------------------

    def _refresh_members(self) -> None:
        if self._journal.membership is self._membership:
            return
        self._membership = self._journal.membership
        self._voters = frozenset(peer.node_id for peer in self._membership)
        before, self.log_ids = self.log_ids, {peer.node_id: peer.log_id for peer in self._membership}
        self._has_vote = has_vote(self._view(self._now, candidate=False))
        # Of who was removed and added again meanwhile nothing is known yet.
        self.lost_logs = frozenset(one for one in self.lost_logs if self.log_ids.get(one) == before[one])
        for member in self._voters & self.learners.keys():
            del self.learners[member]
        self.algorithm.set_members(self._voters, self.learners, self._now)
        self.replication.set_members((self._voters | self.learners.keys()) - {self._me})

    def _view(self, now: float, candidate: bool) -> View:
        """`candidate`: a candidate speaks, and only then it matters whether a leader is alive."""
        term, votes = self._votes
        return View(
            me=self._me,
            role=self.algorithm.role(),
            term=self.algorithm.term(),
            voted_for=self.algorithm.voted_for(),
            leader_id=self.algorithm.leader_id(),
            leader_alive=candidate and self.quorum(now),
            voters=self._voters,
            learners=self.learners,
            votes=votes if term == self.algorithm.term() else (),
            rehearsal_votes=self._rehearsal,
            commit_index=self.algorithm.commit_index(),
            log=self._journal,
            log_id=self._journal.log_id,
            log_ids=self.log_ids,
            rules=self._rules,
        )
