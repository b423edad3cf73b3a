"""Plans against the newest state and commits: what waits while a commit is under way is planned together.

All that changes the cluster's state on the leader goes through one `Writer`, so that two planners never race
for the same object; compare-and-set still guards against what a former leader wrote.

The changes that have gathered are planned one after the other, each as if those before it had been committed
(`Store.rehearsal`), and proposed together. Each remains a transaction of its own, with its own request id and
answer, and demands what the one before it wrote: where that came to nothing, all that was planned upon it
comes to nothing too and is planned anew. A plan that changes nothing, or refuses, is only believed when all
before it is committed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import trio

from daemon.errors import Kind, Refused
from proto.store_pb2 import Transaction, TransactionResult
from raft.errors import Ambiguous, NotLeader, NotServed, Unavailable
from raft.features import too_early
from raft.member import Member, Proposal
from raft.store import Store
from raft.transaction import TransactionBuilder, chained, chained_version

logger = logging.getLogger(__name__)

R = TypeVar("R")
Plan = Callable[[Store, int, Callable[[], str]], tuple[TransactionBuilder, R]]
PROPOSE_TIMEOUT_S = 10.0
CONFLICT_TRIES_MAX = 5
AMBIGUOUS_TRIES_MAX = 3
WAITERS_MAX = 1_000
TOGETHER_MAX = 64  # changes that are proposed together
TOGETHER_PLANNING_S = 0.02  # after so much planning the others wait for the next time
TOGETHER_BYTES_MAX = 512 * 1024  # of transactions, unless one alone is larger

NO_LEADER = (
    "this host does not lead the cluster now, or has lost its majority; nothing was changed. "
    "Try again, or see `fairway status` on another host"
)
UNKNOWN = (
    "the change may or may not have been committed: this host lost its majority, or stopped leading, before it "
    "heard; look before trying again"
)


def swapped(planned: tuple[R, TransactionBuilder]) -> tuple[TransactionBuilder, R]:
    """The order that `Writer.commit` wants, from planners that give their value first."""
    return planned[1], planned[0]


class _Change(Generic[R]):
    """One caller's change, planned once."""

    def __init__(self, plan: Plan[R], actor: str, request_id: str) -> None:
        self.plan, self.actor, self.request_id = plan, actor, request_id
        self.planned = trio.Event()
        self.value: R | None = None
        self.refusal: Exception | None = None  # what `plan` raised
        self.transaction: Transaction | None = None  # None where nothing changes
        self.proposal: Proposal | NotServed | None = None  # None: it is alone, and proposes itself
        self.before: _Change[Any] | None = None  # planned upon it
        self.ended = trio.Event()
        self.committed = False


class Writer:
    """The leader's only way to write."""

    def __init__(self, member: Member, now_unix_ms: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._member = member
        self._now_unix_ms = now_unix_ms
        self._new_id = new_id
        self._waiting: deque[_Change[Any]] = deque()
        self._under_way: set[_Change[Any]] = set()

    @property
    def store(self) -> Store:
        return self._member.store

    async def commit(self, plan: Plan[R], actor: str, request_id: str = "") -> tuple[R, int]:
        """Runs `plan(store, now_unix_ms, new_id)` and commits what it built; its value and the revision.

        `plan` must not keep the store's objects, and cannot wait for anything. A plan without operations commits
        nothing. Planned anew where something changed meanwhile. Raises Refused, also with what `plan` raised.
        """
        if len(self._waiting) >= WAITERS_MAX:
            raise Refused("the leader has too many changes waiting; try again", Kind.UNAVAILABLE)
        for attempt in range(CONFLICT_TRIES_MAX):
            change = _Change(plan, actor, self._request_id(request_id, attempt))
            if attempt:
                self._waiting.appendleft(change)
            else:
                self._waiting.append(change)
            try:
                self._plan_waiting()
                await change.planned.wait()
                revision = await self._outcome(change)
            finally:
                self._end(change)
            if revision is not None:
                return cast(R, change.value), revision
        raise Refused("the objects were changed again and again meanwhile; try again", Kind.UNAVAILABLE)

    def _request_id(self, of_caller: str, attempt: int) -> str:
        """A try that failed is remembered too, so the next has another id: the same one when the caller repeats."""
        if not of_caller:
            return self._new_id()
        return f"{of_caller}-{attempt}" if attempt else of_caller

    def _end(self, change: _Change[Any]) -> None:
        change.ended.set()
        if isinstance(change.proposal, Proposal):
            change.proposal.close()
        if not change.planned.is_set():
            self._waiting.remove(change)
        self._under_way.discard(change)
        self._plan_waiting()

    # ---- planning -----------------------------------------------------------------------------

    def _plan_waiting(self) -> None:
        """Plans and proposes what waits, unless something is under way."""
        if self._under_way or not self._waiting:
            return
        until_s, size = time.monotonic() + TOGETHER_PLANNING_S, 0
        chain: list[_Change[Any]] = []
        with self.store.rehearsal() as rehearse:
            while self._waiting and len(self._under_way) < TOGETHER_MAX:
                change = self._waiting[0]
                change.before = chain[-1] if chain else None
                transaction = self._planned(change)
                if transaction is not None:
                    if chain:
                        size += transaction.ByteSize()
                        previous = chain[-1].transaction
                        assert previous is not None
                        if size > TOGETHER_BYTES_MAX or not chained(transaction, previous, len(chain) - 1):
                            break  # it is planned again when those before it are committed
                    else:
                        size = transaction.ByteSize()
                    change.transaction = transaction
                    chain.append(change)
                self._waiting.popleft()
                self._under_way.add(change)
                change.planned.set()
                if not self._waiting or time.monotonic() >= until_s:
                    break
                if transaction is not None and not rehearse(transaction, chained_version(len(chain) - 1)):
                    break  # it will be refused: nothing can be planned upon it
        if len(chain) > 1:
            self._propose_together(chain)

    def _planned(self, change: _Change[Any]) -> Transaction | None:
        change.refusal = None
        try:
            builder, change.value = change.plan(self.store, self._now_unix_ms(), self._new_id)
            if not len(builder):
                return None
            transaction = builder.build(change.request_id, change.actor, self._now_unix_ms())
            early = too_early(self.store, transaction)
            if early:  # before it is chained to others: older builds would stop at it
                raise Refused(early, Kind.NOT_POSSIBLE)
            return transaction
        except Exception as error:
            change.refusal = error
            return None

    def _propose_together(self, chain: list[_Change[Any]]) -> None:
        proposals: list[Proposal | NotServed]
        try:
            transactions = [change.transaction for change in chain if change.transaction is not None]
            proposals = [*self._member.propose_chain(transactions, PROPOSE_TIMEOUT_S)]
        except NotServed as error:
            proposals = [error] * len(chain)
        for change, proposal in zip(chain, proposals, strict=True):
            change.proposal = proposal

    # ---- what came of it ----------------------------------------------------------------------

    async def _outcome(self, change: _Change[Any]) -> int | None:
        """The revision at which it is committed; None where it has to be planned anew. Raises Refused."""
        if change.transaction is None:
            if change.before is not None:
                await change.before.ended.wait()
                if not change.before.committed:
                    return None
            if change.refusal is not None:
                raise change.refusal
            return self.store.revision
        result = await self._result(change, change.transaction)
        if result.code == TransactionResult.CONFLICT:
            logger.debug("planned anew: %s", result.message)
            return None
        if result.code != TransactionResult.OK:
            raise Refused(result.message, Kind.CONFLICT if result.code == TransactionResult.DUPLICATE else Kind.INVALID)
        change.committed = True
        return result.revision

    async def _result(self, change: _Change[Any], transaction: Transaction) -> TransactionResult:
        proposal: Proposal | NotServed | None = change.proposal
        open_outcome = False
        for _ in range(AMBIGUOUS_TRIES_MAX):
            try:
                if isinstance(proposal, NotServed):
                    raise proposal
                if proposal is not None:
                    return await proposal.result()
                # A repeat of one of several finds what came of the first try, or a conflict.
                return await self._member.propose(transaction, PROPOSE_TIMEOUT_S)
            except Ambiguous:
                open_outcome, proposal = True, None  # the request id makes the repeat harmless
            except (NotLeader, Unavailable) as error:
                # Only of this try is it known that nothing came of it.
                raise Refused(UNKNOWN if open_outcome else NO_LEADER, Kind.UNAVAILABLE) from error
        raise Refused(UNKNOWN, Kind.UNAVAILABLE)
