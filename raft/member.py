"""This host's part in consensus, as the daemon uses it: run it, propose, read, watch, change who votes.

    member = Member(settings, peers, tls)
    await nursery.start(member.run)
    result = await member.propose(transaction)
    member.store.get(objects_pb2.Node, node_id)

Everything here runs in the main trio loop. Consensus itself has a thread and a trio loop of its own
(raft/worker.py), so that nothing the daemon does delays a heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from proto.store_pb2 import Transaction, TransactionResult
from raft.entry import transaction_command
from raft.errors import Ambiguous, MemberFault, NotLeader, NotServed, Refused, Unavailable
from raft.features import too_early
from raft.handover import Handover, Ticket
from raft.link import TlsSource
from raft.requests import (
    CATCH_UP_MS_MAX,
    HAND_OVER_MS_MAX,
    AddVoter,
    Asked,
    Follow,
    HandOver,
    Propose,
    ProposeChain,
    ReadBarrier,
    RemoveVoter,
    Request,
)
from raft.settings import Peer, RaftSettings
from raft.status import PeerStatus, RaftStatus
from raft.store import Store
from raft.worker import Worker

__all__ = [
    "Ambiguous",
    "Member",
    "MemberFault",
    "NotLeader",
    "NotServed",
    "Peer",
    "Proposal",
    "RaftSettings",
    "RaftStatus",
    "Refused",
    "TlsSource",
    "Unavailable",
]

CHANGE_SLACK_MS = 2000
TIMEOUT_SECONDS_COARSE = 1.0  # waits at least so long end up to LATE_STEP_SECONDS late
LATE_STEP_SECONDS = 0.1
LATE_MS_MAX = 5000  # a member among several that has had no turn for so long is not to be trusted with a quorum


class Member:
    """One member. `store` is the main thread's view; it may trail the log by an instant (`read_barrier`)."""

    def __init__(self, settings: RaftSettings, peers: Sequence[Peer], tls: TlsSource) -> None:
        """`peers`: where other members are, as far as the daemon knows; this one may be among them.

        A host that is to vote starts as a learner, which never campaigns, and gets its vote from the leader
        (`add_voter` there). Only the first member of a new cluster has `settings.bootstrap`.
        """
        self.settings = settings
        self.store = Store()
        self._peers = [peer for peer in peers if peer.node_id != settings.node_id]
        self._tls = tls
        self._worker: Worker | None = None
        self._waiting: set[Ticket] = set()
        self._told = trio.lowlevel.ParkingLot()
        self._asked = trio.lowlevel.ParkingLot()

    # ---- running ------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Takes part until cancelled, then stops cleanly; reports started when `store` is loaded.

        A fault does not raise: it is in `status().error`, and requests raise Unavailable.
        """
        loaded = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def started() -> None:
            if not loaded.is_set():
                token.run_sync_soon(loaded.set, idempotent=True)

        handover = Handover(self.store, self.settings.handover_changes_max, self._tell)
        worker = self._worker = Worker(self.settings, self._peers, self._tls, handover, started)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_thread, worker)
                nursery.start_soon(self._end_late)
                try:
                    await loaded.wait()
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    worker.stop()
        finally:
            self._worker = None
            for ticket in self._waiting:
                ticket.outcome = Ambiguous("this host's daemon is stopping")
                ticket.answered.set()
            self._tell()

    # ---- writing and reading ------------------------------------------------------------------

    async def propose(self, transaction: Transaction, timeout_s: float = 10.0) -> TransactionResult:
        """Commits a transaction; only on the leader. Returns when `store` shows it.

        A result that is not OK changed nothing. NotLeader and Unavailable: nothing was changed either.
        Ambiguous: unknown, retry with the same request id.
        """
        early = too_early(self.store, transaction)
        if early:
            return TransactionResult(code=TransactionResult.INVALID, revision=self.store.revision, message=early)
        command = transaction_command(transaction)
        if len(command) > self.settings.transaction_bytes_max:
            return TransactionResult(
                code=TransactionResult.INVALID,
                revision=self.store.revision,
                message=f"the change has {len(command)} bytes, "
                f"at most {self.settings.transaction_bytes_max} are allowed: make it smaller",
            )
        late = Ambiguous(f"not committed within {timeout_s:g} s: retry with the same request id")
        outcome = await self._ask(lambda ticket: Propose(ticket, command), timeout_s, late)
        assert isinstance(outcome, TransactionResult)
        return outcome

    def propose_chain(self, transactions: Sequence[Transaction], timeout_s: float = 10.0) -> list[Proposal]:
        """Like `propose` for several, of which each depends on those before it (raft/transaction.py); at once.

        Each has its own outcome. `close` every one of them. Unavailable where consensus does not run.
        """
        if not transactions:
            return []
        late = Ambiguous(f"not committed within {timeout_s:g} s: retry with the same request id")
        tickets = self._tickets(len(transactions), timeout_s, late)
        self._send(ProposeChain(tickets, tuple(transactions)))
        return [Proposal(ticket, self._waiting) for ticket in tickets]

    async def read_barrier(self, timeout_s: float = 10.0) -> None:
        """Returns when `store` holds all that was committed before the call; only on the leader.

        NotLeader, or Unavailable where no majority confirms the leadership in time.
        """
        late = Unavailable(f"no majority of the voters confirmed within {timeout_s:g} s that this host leads")
        await self._ask(ReadBarrier, timeout_s, late)

    # ---- who votes ----------------------------------------------------------------------------

    async def add_voter(self, peer: Peer) -> None:
        """Gives a running learner a vote, after it has caught up. Also for a voter's new address.

        NotLeader; Refused where it cannot be reached or another change is under way; Ambiguous.
        """
        await self._change(lambda ticket: AddVoter(ticket, peer), CATCH_UP_MS_MAX)

    async def remove_voter(self, node_id: str) -> None:
        """Takes a vote. NotLeader; Refused for the leader itself or where no majority would be up."""
        await self._change(lambda ticket: RemoveVoter(ticket, node_id), CATCH_UP_MS_MAX)

    async def follow(self, peer: Peer, wanted: bool) -> None:
        """Sends a member without a vote the log, so that it learns what is true now, or stops that. NotLeader."""
        await self._change(lambda ticket: Follow(ticket, peer, wanted), 0)

    async def transfer_leadership(self, node_id: str) -> None:
        """Lets another voter lead; returns when this one does not any more. NotLeader, Refused."""
        await self._change(lambda ticket: HandOver(ticket, node_id), HAND_OVER_MS_MAX)

    def update_peer_address(self, peer: Peer) -> None:
        """Where a member is now. Tell of every node that may vote: strangers' connections are refused."""
        self._peers = [known for known in self._peers if known.node_id != peer.node_id] + [peer]
        if self._worker is not None and peer.node_id != self.settings.node_id:
            self._worker.set_address(peer)

    def moved(self, address: str) -> None:
        """The others reach this member at another address now: it connects to them anew, and they follow."""
        if self._worker is not None:
            self._worker.moved(address)

    def forget_peer(self, node_id: str) -> None:
        """It was removed from the cluster: what it says is not heard any more, unless the log gives it a vote."""
        self._peers = [known for known in self._peers if known.node_id != node_id]
        if self._worker is not None:
            self._worker.forget_peer(node_id)

    # ---- status -------------------------------------------------------------------------------

    def status(self) -> RaftStatus:
        """This member now."""
        if self._worker is None:
            return RaftStatus()
        seen, now = self._worker.seen, time.monotonic()
        stuck = len(seen.voters) > 1 and now - seen.at > LATE_MS_MAX / 1000
        return RaftStatus(
            role=seen.role,
            term=seen.term,
            leader_id=seen.leader_id,
            commit_index=seen.commit_index,
            applied_revision=seen.applied_revision,
            quorum=seen.quorum and not stuck,
            voters=seen.voters,
            peers=tuple(
                PeerStatus(
                    one.node_id,
                    int((now - one.heard_at) * 1000) if one.heard_at else -1,
                    one.lag_entries,
                    one.connected,
                )
                for one in seen.peers
            ),
            last_leader_heard=seen.leader_heard_at,
            lost_logs=seen.lost_logs,
            error=seen.error,
        )

    def role_changes(self) -> AsyncIterator[RaftStatus]:
        """The status now and after every change of role, term, leader, quorum, voters or error.

        Who reads slowly sees only the newest. Never ends by itself; may be left at any time.
        """
        return _RoleChanges(self.status, self._told)

    # ---- asking the raft thread ---------------------------------------------------------------

    async def _change(self, make: Callable[[Ticket], Request], limit_ms: int) -> None:
        late = Ambiguous("the change did not end in time: look who votes and who leads, then try again")
        await self._ask(make, (limit_ms + CHANGE_SLACK_MS) / 1000, late)

    async def _ask(
        self, make: Callable[[Ticket], Request], timeout_s: float, late: NotServed
    ) -> TransactionResult | None:
        (ticket,) = self._tickets(1, timeout_s, late)
        try:
            self._send(make(ticket))
            if timeout_s >= TIMEOUT_SECONDS_COARSE:
                await ticket.answered.wait()
            elif timeout_s > 0:  # else it is asked for, and nobody waits
                with trio.move_on_after(timeout_s):
                    await ticket.answered.wait()
        finally:
            self._waiting.discard(ticket)
        if not ticket.answered.is_set():
            raise late
        return _served(ticket)

    def _tickets(self, count: int, timeout_s: float, late: NotServed) -> tuple[Ticket, ...]:
        worker = self._worker
        if worker is None or worker.seen.role == "stopped":
            error = worker.seen.error if worker is not None else ""
            raise Unavailable(f"consensus does not run on this host{': ' + error if error else ''}")
        if len(self._waiting) >= 2 * self.settings.proposals_waiting_max:
            raise Unavailable(f"{len(self._waiting)} requests wait already: try again in a moment")
        deadline = trio.current_time() + timeout_s
        tickets = tuple(Ticket(deadline, late) for _ in range(count))
        self._waiting.update(tickets)
        self._asked.unpark_all()
        return tickets

    def _send(self, request: Asked) -> None:
        assert self._worker is not None  # `_tickets` has seen it in this same step
        self._worker.requests.append(request)
        self._worker.wake()

    async def _end_late(self) -> None:
        """Ends long waits that are over, all together: a timer for each request would cost as much as all else here."""
        while True:
            while not self._waiting:
                await self._asked.park()
            await trio.sleep(LATE_STEP_SECONDS)
            now = trio.current_time()
            for ticket in self._waiting:
                if ticket.deadline <= now and not ticket.answered.is_set():
                    ticket.outcome = ticket.late
                    ticket.answered.set()

    def _tell(self) -> None:
        worker = self._worker
        if worker is not None and worker.seen.role == "stopped" and worker.seen.error:
            for ticket in self._waiting:
                if not ticket.answered.is_set():
                    ticket.outcome = Ambiguous(f"consensus stopped on this host: {worker.seen.error}")
                    ticket.answered.set()
        self._told.unpark_all()


class Proposal:
    """A transaction on its way (`Member.propose_chain`)."""

    def __init__(self, ticket: Ticket, waiting: set[Ticket]) -> None:
        self._ticket, self._waiting = ticket, waiting

    async def result(self) -> TransactionResult:
        """As `Member.propose`: the result, or NotLeader, Unavailable, Ambiguous."""
        await self._ticket.answered.wait()
        outcome = _served(self._ticket)
        assert isinstance(outcome, TransactionResult)
        return outcome

    def close(self) -> None:
        """Nobody waits for it any more; safe to repeat."""
        self._waiting.discard(self._ticket)


def _served(ticket: Ticket) -> TransactionResult | None:
    if isinstance(ticket.outcome, NotServed):
        raise ticket.outcome
    return ticket.outcome


class _RoleChanges:
    def __init__(self, status: Callable[[], RaftStatus], told: trio.lowlevel.ParkingLot) -> None:
        self._status, self._told = status, told
        self._shown: tuple[object, ...] | None = None

    def __aiter__(self) -> _RoleChanges:
        return self

    async def __anext__(self) -> RaftStatus:
        await trio.lowlevel.checkpoint()
        while (status := self._status()).gist() == self._shown:
            await self._told.park()
        self._shown = status.gist()
        return status


async def _thread(worker: Worker) -> None:
    # Not abandoned on cancellation: `worker.stop` ends it, and its database is closed before this returns.
    await trio.to_thread.run_sync(trio.run, worker.run, limiter=trio.CapacityLimiter(1), thread_name="raft")
