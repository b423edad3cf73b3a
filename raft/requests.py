"""What the daemon asks of a member, and the changes of the membership that take more than one turn.

A request carries a ticket, any object of the asker's; the answer goes to the ticket.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from proto.store_pb2 import Transaction, TransactionResult
from raft.consensus import Consensus
from raft.entry import membership_command, transaction_command
from raft.errors import Ambiguous, NotLeader, NotServed, Refused
from raft.journal import Journal
from raft.settings import Peer
from raft.transaction import resolved

CATCH_UP_ENTRIES = 64  # a learner this close to the end of the log gets its vote
CATCH_UP_MS_MAX = 30_000
HAND_OVER_MS_MAX = 5_000
HAND_OVER_REPEAT_MS = 500
ANSWER_MS_MAX = 1_000  # an answer that took longer says too little of now: everybody is asked again
STEP_MS = 50  # how often a change in progress is looked at when nothing else happens

Outcome = TransactionResult | None | NotServed
Answer = tuple[object, Outcome]


@dataclass(frozen=True)
class Propose:
    """Append a transaction's command (raft/entry.py)."""

    ticket: object
    command: bytes

    def command_after(self, _indexes: Sequence[int]) -> bytes:
        return self.command


@dataclass(frozen=True)
class ProposeChain:
    """Append transactions of which each depends on those before it (raft/transaction.py); a ticket for each.

    What a transaction expects of those before it is only known when they have their places in the log.
    """

    tickets: tuple[object, ...]
    transactions: tuple[Transaction, ...]

    def command_after(self, indexes: Sequence[int]) -> bytes:
        """The next command, where those before it have got these places in the log."""
        return transaction_command(resolved(self.transactions[len(indexes)], indexes))


@dataclass(frozen=True)
class ReadBarrier:
    """Answer when everything committed until now is applied, leadership confirmed since."""

    ticket: object


@dataclass(frozen=True)
class AddVoter:
    """Give a member a vote, after it has caught up with the log."""

    ticket: object
    peer: Peer


@dataclass(frozen=True)
class RemoveVoter:
    """Take a member's vote."""

    ticket: object
    node_id: str


@dataclass(frozen=True)
class HandOver:
    """Let another voter lead."""

    ticket: object
    node_id: str


@dataclass(frozen=True)
class Follow:
    """Send this leader's log to a member without a vote, or (`wanted` False) no longer.

    A member that lost its vote while it was away learns that way that it has none; one that was dropped when
    the cluster was recovered without it learns what the state is now.
    """

    ticket: object
    peer: Peer
    wanted: bool


Request = Propose | ReadBarrier | AddVoter | RemoveVoter | HandOver | Follow
Asked = Request | ProposeChain
Change = AddVoter | RemoveVoter | HandOver


class Changes:
    """At most one change of the membership or of the leadership at a time."""

    def __init__(self, consensus: Consensus, journal: Journal) -> None:
        self._consensus = consensus
        self._journal = journal
        self._change: Change | None = None
        self._deadline = 0.0
        self._again_at = 0.0
        self._index = 0  # of the entry that must commit; 0: not appended yet
        self._round = 0  # whoever answered it was there since the change became possible; 0: not asked yet
        self._round_until = 0.0

    @property
    def handing_over(self) -> bool:
        """While the leadership moves nothing new is appended, or the target would never catch up."""
        return isinstance(self._change, HandOver)

    def wake_at(self, now: float) -> float:
        return now + STEP_MS / 1000 if self._change is not None else float("inf")

    def follow(self, request: Follow) -> Answer:
        """Carries it out at once, unless the member is about to get its vote."""
        consensus = self._consensus
        if not consensus.leads:
            return request.ticket, NotLeader(consensus.algorithm.leader_id())
        member = request.peer.node_id
        adding = isinstance(self._change, AddVoter) and self._change.peer.node_id == member
        wanted = request.peer if request.wanted else None
        if not adding and member not in consensus.voters and consensus.learners.get(member) != wanted:
            consensus.set_learner(request.peer, request.wanted)
        return request.ticket, None

    def start(self, change: Change, now: float) -> Answer | None:
        """Begins a change; the answer if there is one already."""
        refused = self._refusal(change, now)
        if refused is not None:
            return change.ticket, refused
        if self._is_done(change):
            return change.ticket, None
        self._change, self._index, self._round, self._again_at = change, 0, 0, now
        limit = HAND_OVER_MS_MAX if isinstance(change, HandOver) else CATCH_UP_MS_MAX
        self._deadline = now + limit / 1000
        if isinstance(change, AddVoter) and change.peer.node_id not in self._consensus.voters:
            self._consensus.set_learner(change.peer, wanted=True)
        return None

    def step(self, now: float) -> Answer | None:
        """Goes on with the change in progress; the answer when it has ended."""
        change = self._change
        if change is None:
            return None
        outcome: Outcome = None
        if not self._consensus.leads:
            if not isinstance(change, HandOver):
                outcome = self._lost()
        elif isinstance(change, HandOver):
            if now < self._deadline:
                self._hand_over(change, now)
                return None
            outcome = Refused(f"{change.node_id} did not take over within {HAND_OVER_MS_MAX} ms: try another")
        elif self._index == 0:
            if now < self._deadline:
                self._append_when_possible(change, now)
                return None
            outcome = self._too_slow(change)
        elif self._consensus.algorithm.commit_index() < self._index:
            return None
        self._change = None
        return change.ticket, outcome

    # ---- conditions ---------------------------------------------------------------------------

    def _refusal(self, change: Change, now: float) -> NotServed | None:
        consensus, me = self._consensus, self._me
        if not consensus.leads:
            return NotLeader(consensus.algorithm.leader_id())
        if self._change is not None:
            return Refused("another change of the voters or the leader is under way: try again later")
        if isinstance(change, RemoveVoter):
            if change.node_id == me:
                return Refused("the leader cannot take its own vote: hand the leadership over first")
            left = consensus.voters - {change.node_id}
            heard = self._heard(left, now)
            if change.node_id in consensus.voters and 2 * len(heard) <= len(left):
                return Refused(
                    f"without {change.node_id} only {len(heard)} of {len(left)} voters would be up, "
                    "which is no majority: bring another voter up first"
                )
        if isinstance(change, HandOver) and change.node_id not in consensus.voters:
            return Refused(f"{change.node_id} has no vote, so it cannot lead")
        return None

    def _is_done(self, change: Change) -> bool:
        if isinstance(change, AddVoter):
            return change.peer in self._journal.membership
        if isinstance(change, RemoveVoter):
            return change.node_id not in self._consensus.voters
        return bool(change.node_id == self._consensus.algorithm.selfNode.id)

    def _append_when_possible(self, change: AddVoter | RemoveVoter, now: float) -> None:
        algorithm, journal = self._consensus.algorithm, self._journal
        committed = algorithm.commit_index()
        # Raft's single-server changes are safe only one after the other, and after an entry of its own term.
        if committed < algorithm.noop_index() or committed < journal.membership_index:
            return
        if isinstance(change, AddVoter):
            node_id = change.peer.node_id
            log_id = next((peer.log_id for peer in journal.membership if peer.node_id == node_id), None)
            if log_id is None:
                # Who knows no membership gives no vote: it must have the entry that set it, or a snapshot.
                needed = max(journal.last_index - CATCH_UP_ENTRIES, journal.membership_index, journal.first_index)
                voters = self._consensus.voters | {node_id}
                if algorithm.match_index(node_id) < needed or not self._answered(voters, {node_id}, now):
                    return
                log_id = self._consensus.learner_logs.get(node_id, 0)
            added: tuple[Peer, ...] = (replace(change.peer, log_id=log_id),)
        else:
            node_id, added = change.node_id, ()
            if not self._answered(self._consensus.voters - {node_id}, set(), now):
                return
        others = tuple(peer for peer in journal.membership if peer.node_id != node_id)
        self._index = self._consensus.append(membership_command(others + added))

    def _answered(self, voters: Collection[str], needed: Collection[str], now: float) -> bool:
        """Whether a majority of those who are to vote, and all `needed`, answer this leader now with their logs.

        Who was heard a while ago, or is only taken for heard as a new leader does, may have lost its log since: the
        change could then leave voters of whom no majority can ever be had again.
        """
        consensus = self._consensus
        if not self._round or now >= self._round_until:
            self._round, self._round_until = consensus.new_round(now), now + ANSWER_MS_MAX / 1000
        answered = {one for one in voters if one == self._me or consensus.replication.round_of(one) >= self._round}
        return 2 * len(answered) > len(voters) and answered.issuperset(needed)

    @property
    def _me(self) -> str:
        return str(self._consensus.algorithm.selfNode.id)

    def _heard(self, voters: Collection[str], now: float) -> set[str]:
        """This leader, and those of `voters` that it heard lately and whose log is the one that has the vote."""
        consensus = self._consensus
        heard = {one for one in voters if consensus.algorithm.heard_at(one) > now - 1.0}
        return (heard - consensus.lost_logs) | {self._me}

    def _hand_over(self, change: HandOver, now: float) -> None:
        if now >= self._again_at and self._consensus.hand_over(change.node_id):
            self._again_at = now + HAND_OVER_REPEAT_MS / 1000

    def _lost(self) -> NotServed:
        if self._index:
            return Ambiguous("leadership was lost meanwhile: look who votes now and try again")
        return NotLeader(self._consensus.algorithm.leader_id())

    def _too_slow(self, change: AddVoter | RemoveVoter) -> NotServed:
        if isinstance(change, AddVoter):
            peer = change.peer
            self._consensus.set_learner(peer, wanted=False)
            return Refused(
                f"{peer.node_id} at {peer.address}:{peer.port} did not catch up within {CATCH_UP_MS_MAX} ms: "
                "is its daemon running, and can this host reach that port?"
            )
        return Refused(
            "the change before this one is not committed yet, or no majority would be up: are the voters up?"
        )
