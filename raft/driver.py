"""One member, a turn at a time: deliver, tick, make durable, send, apply, answer. No threads, no sockets.

Whoever owns a driver (raft/member.py in a daemon, a simulator in tests) hands it messages and requests,
calls `turn` with the time, and only then sends what the turn returns: by then the log, term and vote that
those messages speak of are on disk. Any exception means that this object must not be used further.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from proto.store_pb2 import Transaction, TransactionResult
from raft import snapshot as snapshots
from raft.consensus import Consensus
from raft.entry import MEMBERSHIP, NOTHING, TRANSACTION, Entry, membership_command
from raft.errors import Ambiguous, DiskFull, MemberFault, NotLeader, Unavailable
from raft.features import require
from raft.journal import LOG_ID_BITS, Journal
from raft.messages import Append, Message
from raft.requests import Answer, Asked, Changes, Follow, Propose, ProposeChain, ReadBarrier
from raft.rules import ALL_RULES, Rules
from raft.settings import Peer, RaftSettings
from raft.snapshot import Snapshot
from raft.state_file import Applied, StateFile
from raft.store import Store
from raft.transaction import TRANSACTION_FORMAT
from raft.watch import ChangeBatch

log = logging.getLogger(__name__)

NEVER = float("inf")
TEXT_PAUSE_SECONDS = 0.1  # between two helpings of JSON for the tables, each some milliseconds of work
Outbox = list[tuple[str, Message]]


@dataclass
class Turn:
    """What came of a turn: messages to send, changes to show, requests that are answered."""

    outbox: Outbox = field(default_factory=list)
    batches: list[ChangeBatch] = field(default_factory=list)
    restored: bool = False  # a snapshot replaced the store: take it over whole, before `batches`
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class _Barrier:
    ticket: object
    round: int
    read_index: int


class Driver:
    """Loads a member's state from its database; MemberFault where that is damaged."""

    def __init__(
        self,
        settings: RaftSettings,
        database: sqlite3.Connection,
        now: float,
        random: Callable[[], float],
        rules: Rules = ALL_RULES,
    ) -> None:
        self.store = Store()
        self._rules = rules
        self._settings = settings
        self._database = database
        self._state_file = StateFile(database, settings.feature_level)
        self._stored = self._state_file.load(self.store)
        self.journal = Journal(database, self._stored.membership, rules, lambda: int(random() * (1 << LOG_ID_BITS)) + 1)
        if not self.journal.first_index <= self._stored.index <= self.journal.last_index:
            raise MemberFault("log and tables do not fit together: restore this host's state or rejoin")
        if settings.bootstrap and self.journal.last_index == 1 and not self.journal.membership:
            self._bootstrap()
        self.consensus = Consensus(
            settings, self.journal, self._stored.index, now, random, self._take_snapshot, self._install, rules
        )
        self._changes = Changes(self.consensus, self.journal)
        self._requests: deque[Asked] = deque()
        self._waiting: dict[int, tuple[int, object]] = {}  # index -> (term, ticket)
        self._barriers: list[_Barrier] = []
        self._installed: Snapshot | None = None
        self._gather_until = now
        self._flush_due = NEVER
        self._text_due = now if self._state_file.text_missing else NEVER

    # ---- input --------------------------------------------------------------------------------

    def request(self, request: Asked) -> None:
        """Queues a request for the next turn; its answer comes with a turn."""
        self._requests.append(request)

    def deliver(self, sender: str, message: Message, now: float) -> None:
        """A message from an authenticated member."""
        self.consensus.deliver(sender, message, now)

    def connected(self, member: str, up: bool) -> None:
        """The connection to a member opened or broke."""
        self.consensus.connected(member, up)

    def wake_at(self, now: float) -> float:
        """When the next turn is due if nothing arrives before; infinity: never by itself."""
        algorithm = self.consensus.algorithm
        if algorithm.applied_index() < algorithm.commit_index():
            return now
        requests_due = NEVER
        if self._requests:
            requests_due = self._gather_until if self._waiting or self._barriers else now
        return min(
            requests_due, self.consensus.wake_at(now), self._changes.wake_at(now), min(self._flush_due, self._text_due)
        )

    def idle(self, now: float) -> bool:
        """Whether a turn now would write, send and answer nothing, after messages alone were delivered."""
        consensus = self.consensus
        return not (
            consensus.outbox
            or self._barriers
            or self._installed is not None
            or self.journal.dirty
            or (self._waiting and not consensus.leads)
            or self._changes.wake_at(now) < NEVER
            or consensus.may_go_on()
            or self.wake_at(now) <= now
        )

    # ---- the turn -----------------------------------------------------------------------------

    def turn(self, now: float, send: Callable[[Outbox], None] | None = None) -> Turn:
        """One turn. MemberFault where the disk fails or the state is not to be trusted any more.

        With `send` messages go out as soon as they may: a leader's entries while the disk is still writing
        them (see `_take_early`), all others before the turn applies anything; the outbox is empty then.
        """
        turn = Turn()
        if now >= self._gather_until or not (self._waiting or self._barriers):
            self._take_requests(turn, now)
        self.consensus.tick(now)
        self._step_changes(turn, now)
        if send is not None and (early := self._take_early()):
            send(early)
        try:
            if "persist-before-send" in self._rules or self._installed is not None or now >= self._flush_due:
                self._make_durable(now)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFull("no room for the cluster's state: free some on the disk that holds it") from error
            raise MemberFault(f"the cluster's state cannot be written: {error}") from error
        turn.outbox, self.consensus.outbox = self.consensus.outbox, []
        if send is not None:
            send(turn.outbox)
            turn.outbox = []
        turn.restored, self._installed = self._installed is not None, None
        self._apply(turn, now)
        self._answer_barriers(turn)
        return turn

    def close(self, write: bool) -> list[Answer]:
        """Answers who still waits; with `write` the tables get what they lack, so the next start is quick."""
        answers = self._drop_waiting("consensus stops on this host")
        try:
            if write and self._state_file.dirty_count:
                self._flush_due = 0.0
                self._make_durable(0.0)
        except sqlite3.Error as error:
            log.warning("the tables could not be brought up to date: %s; the log has everything", error)
        return answers

    # ---- requests -----------------------------------------------------------------------------

    def _take_requests(self, turn: Turn, now: float) -> None:
        if not self._requests:
            return
        # While these are under way further ones gather, so that many clients share a round trip and a write.
        self._gather_until = now + self._settings.gather_ms_max / 1000
        quorum = self.consensus.quorum(now)
        barriers: list[ReadBarrier] = []
        room = self._settings.proposals_turn_max
        while self._requests and room > 0:
            request = self._requests.popleft()
            if isinstance(request, Propose):
                room -= 1
                self._propose(turn, (request.ticket,), request.command_after, quorum)
            elif isinstance(request, ProposeChain):
                room -= len(request.tickets)
                self._propose(turn, request.tickets, request.command_after, quorum)
            elif isinstance(request, ReadBarrier):
                barriers.append(request)
            elif isinstance(request, Follow):
                turn.answers.append(self._changes.follow(request))
            else:
                answer = self._changes.start(request, now)
                if answer is not None:
                    turn.answers.append(answer)
        if barriers:
            self._begin_barriers(turn, barriers, now)

    def _propose(
        self, turn: Turn, tickets: Sequence[object], command: Callable[[Sequence[int]], bytes], quorum: bool
    ) -> None:
        """Appends a command for each ticket, one behind the other; `command` is given the indexes of those before."""
        consensus = self.consensus
        refusal: NotLeader | Unavailable
        if not consensus.leads:
            refusal = NotLeader(consensus.algorithm.leader_id())
        elif not quorum:
            refusal = Unavailable("this host hears no majority of the voters: nothing can be changed now")
        elif self._changes.handing_over:
            refusal = Unavailable("the leadership is being handed over: try again in a moment")
        elif len(self._waiting) >= self._settings.proposals_waiting_max:
            refusal = Unavailable(f"{len(self._waiting)} changes wait to be committed: try again in a moment")
        else:
            indexes: list[int] = []
            for ticket in tickets:
                indexes.append(consensus.append(command(indexes)))
                self._waiting[indexes[-1]] = (consensus.algorithm.term(), ticket)
            return
        turn.answers.extend((ticket, refusal) for ticket in tickets)

    def _begin_barriers(self, turn: Turn, barriers: list[ReadBarrier], now: float) -> None:
        algorithm = self.consensus.algorithm
        if not self.consensus.leads:
            refusal = NotLeader(algorithm.leader_id())
            turn.answers.extend((barrier.ticket, refusal) for barrier in barriers)
            return
        # Before an entry of its own term is committed a leader does not know what is committed.
        read_index = max(algorithm.commit_index(), algorithm.noop_index())
        round_ = self.consensus.new_round(now)
        self._barriers.extend(_Barrier(barrier.ticket, round_, read_index) for barrier in barriers)

    def _step_changes(self, turn: Turn, now: float) -> None:
        last_index = self.journal.last_index
        answer = self._changes.step(now)
        if answer is not None:
            turn.answers.append(answer)
        if not self.consensus.leads and (self._waiting or self._barriers):
            turn.answers.extend(self._drop_waiting("leadership was lost before it was committed"))
        if self.consensus.leads and self.journal.last_index > last_index:
            self.consensus.replication.send_new(now)  # what was appended since the tick

    def _take_early(self) -> Outbox:
        """Takes out of the outbox what a leader may send before its own disk has it: its entries.

        Raft lets a leader write and send at the same time (Ongaro's thesis, 10.2.1), as long as it counts
        itself only for what is durable: an answer to such a message is delivered in a later turn, when this
        one is. What it says is committed must be durable here already, and so must its term and vote.
        """
        if not self.consensus.leads or self.journal.promises_dirty:
            return []
        early: Outbox = []
        later: Outbox = []
        late_members: set[str] = set()
        for member, message in self.consensus.outbox:
            durable = self.journal.durable_index if "count-own-disk" in self._rules else self.journal.last_index
            harmless = isinstance(message, Append) and message.commit_index <= durable
            if harmless and member not in late_members:
                early.append((member, message))
            else:
                late_members.add(member)  # what goes to one member stays in order
                later.append((member, message))
        self.consensus.outbox = later
        return early

    def _drop_waiting(self, why: str) -> list[Answer]:
        answers: list[Answer] = [
            (ticket, Ambiguous(f"{why}: it may happen or not, retry with the same request id"))
            for _, ticket in self._waiting.values()
        ]
        lost = NotLeader(self.consensus.algorithm.leader_id())
        answers.extend((barrier.ticket, lost) for barrier in self._barriers)
        self._waiting.clear()
        self._barriers.clear()
        return answers

    def _answer_barriers(self, turn: Turn) -> None:
        applied = self.consensus.algorithm.applied_index()
        still: list[_Barrier] = []
        for barrier in self._barriers:
            confirmed = "confirm-reads" not in self._rules or self.consensus.confirmed(barrier.round)
            if applied >= barrier.read_index and confirmed:
                turn.answers.append((barrier.ticket, None))
            else:
                still.append(barrier)
        self._barriers = still

    # ---- disk ---------------------------------------------------------------------------------

    def _make_durable(self, now: float) -> None:
        state_due = now >= self._flush_due or (self._state_file.dirty_count >= self._settings.state_flush_objects)
        text_due = not state_due and now >= self._text_due
        if not (self.journal.dirty or state_due or text_due or self._installed):
            return
        applied = self._applied() if state_due or self._installed is not None else self._stored
        self._database.execute("begin immediate")
        try:
            self.journal.flush(with_commit=state_due or text_due or self._installed is not None)
            if self._installed is not None:
                self._state_file.replace(self.store, applied)
            elif state_due:
                self._state_file.flush(applied, self.store.revision)
            elif text_due:
                self._state_file.write_texts()
            self._database.execute("commit")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise
        self.journal.flushed()
        if state_due or self._installed is not None:
            self._state_file.flushed()
            self._stored, self._flush_due = applied, NEVER
            self._compact()
        late = self._settings.state_flush_ms / 1000
        self._text_due = now + (TEXT_PAUSE_SECONDS if text_due else late) if self._state_file.text_missing else NEVER

    def _applied(self) -> Applied:
        index = self.consensus.algorithm.applied_index()
        if self._installed is not None:
            index = self._installed.index
        term = self.journal.term_at(index)
        assert term is not None
        return Applied(index, term, self.journal.membership_at(index))

    def _compact(self) -> None:
        settings, journal = self._settings, self.journal
        to_index = min(journal.last_index - settings.log_entries_kept_max, self._stored.index)
        excess = journal.bytes_kept - settings.log_bytes_kept_max
        index = journal.first_index
        while excess > 0 and index < self._stored.index:
            excess -= len(journal.entries(index, 1)[0][0])
            index += 1
        journal.compact(max(to_index, index))

    def _bootstrap(self) -> None:
        """The first member of a cluster decides alone that it is the only voter."""
        settings = self._settings
        address = settings.advertise_address or settings.listen_address
        me = Peer(settings.node_id, address, settings.port, self.journal.log_id)
        self.journal.setCurrentTerm(1, settings.node_id)
        self.journal.add(membership_command((me,)), 2, 1)
        self.journal.setRaftCommitIndex(2)

    def _take_snapshot(self) -> Snapshot:
        applied = self._applied()
        return snapshots.take(self.store, applied.index, applied.term, applied.membership)

    def _install(self, snapshot: Snapshot) -> None:
        self.journal.restart(snapshot.index, snapshot.term, snapshot.membership)
        self.store.restore(snapshot.objects, snapshot.requests, snapshot.revision)
        self._installed = snapshot

    # ---- applying -----------------------------------------------------------------------------

    def _apply(self, turn: Turn, now: float) -> None:
        algorithm = self.consensus.algorithm
        start, commit = algorithm.applied_index() + 1, algorithm.commit_index()
        count = min(commit - start + 1, self._settings.applied_turn_max)
        if count <= 0:
            return
        for entry in self.journal.entries(start, count):
            self._apply_one(turn, entry)
            algorithm.applied(entry[1])
        if self._state_file.dirty_count and self._flush_due == NEVER:
            self._flush_due = now + self._settings.state_flush_ms / 1000

    def _apply_one(self, turn: Turn, entry: Entry) -> None:
        command, index, term = entry
        result = TransactionResult(code=TransactionResult.OK, revision=self.store.revision)
        match command[0]:
            case kind if kind == TRANSACTION:
                result = self._apply_transaction(turn, command, index)
            case kind if kind == MEMBERSHIP:
                self._state_file.note_membership()
            case kind if kind != NOTHING:
                raise MemberFault(
                    f"log entry {index} is of kind {kind}, which this software does not know: start the newer software"
                )
        waiting = self._waiting.pop(index, None)
        if waiting is not None:
            discarded = NotLeader(self.consensus.algorithm.leader_id())
            turn.answers.append((waiting[1], result if waiting[0] == term else discarded))

    def _apply_transaction(self, turn: Turn, command: bytes, index: int) -> TransactionResult:
        try:
            transaction = Transaction.FromString(command[1:])
        except DecodeError as error:
            if "total-apply" not in self._rules:
                raise
            # Every member sees the same bytes and passes over them in the same way.
            log.error("log entry %d cannot be read and changes nothing: %s", index, error)
            return TransactionResult(code=TransactionResult.INVALID, revision=self.store.revision, message="unreadable")
        if transaction.format > TRANSACTION_FORMAT:
            raise MemberFault(
                f"log entry {index} has format {transaction.format}, this software knows "
                f"{TRANSACTION_FORMAT}: start the newer software"
            )
        if "stop-at-newer-level" in self._rules:
            require(self._settings.feature_level, transaction.feature_level)
        if "remember-requests" not in self._rules:
            transaction.request_id = ""
        repeated = self.store.remembers(transaction.request_id)
        result, changes = self.store.apply(transaction, index)
        if not repeated:
            self._state_file.note(transaction.request_id, result, changes)
        if changes:
            turn.batches.append(ChangeBatch(index, changes))
        return result
