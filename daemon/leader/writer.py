"""Plans against the newest state and commits, one plan after the other.

All that changes the cluster's state on the leader goes through one `Writer`, so that two planners never race
for the same object; compare-and-set still guards against what a former leader wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import trio

from daemon.errors import Kind, Refused
from proto.store_pb2 import TransactionResult
from raft.errors import Ambiguous, NotLeader, Unavailable
from raft.member import Member
from raft.store import Store
from raft.transaction import TransactionBuilder

logger = logging.getLogger(__name__)

R = TypeVar("R")
PROPOSE_TIMEOUT_S = 10.0
CONFLICT_TRIES_MAX = 5
AMBIGUOUS_TRIES_MAX = 3
WAITERS_MAX = 1_000

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


class Writer:
    """The leader's only way to write."""

    def __init__(self, member: Member, now_unix_ms: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._member = member
        self._now_unix_ms = now_unix_ms
        self._new_id = new_id
        self._lock = trio.Lock()

    @property
    def store(self) -> Store:
        return self._member.store

    async def commit(
        self,
        plan: Callable[[Store, int, Callable[[], str]], tuple[TransactionBuilder, R]],
        actor: str,
        request_id: str = "",
    ) -> tuple[R, int]:
        """Runs `plan(store, now_unix_ms, new_id)` and commits what it built; its value and the revision.

        A plan without operations commits nothing. Planned anew where something changed meanwhile.
        Raises Refused, also with what `plan` raised.
        """
        if self._lock.statistics().tasks_waiting >= WAITERS_MAX:
            raise Refused("the leader has too many changes waiting; try again", Kind.UNAVAILABLE)
        async with self._lock:
            for _ in range(CONFLICT_TRIES_MAX):
                builder, value = plan(self.store, self._now_unix_ms(), self._new_id)
                if len(builder) == 0:
                    return value, self.store.revision
                result = await self._propose(builder, actor, request_id or self._new_id())
                if result.code == TransactionResult.OK:
                    return value, result.revision
                if result.code != TransactionResult.CONFLICT:
                    kind = Kind.CONFLICT if result.code == TransactionResult.DUPLICATE else Kind.INVALID
                    raise Refused(result.message, kind)
                logger.debug("planned anew: %s", result.message)
        raise Refused("the objects were changed again and again meanwhile; try again", Kind.UNAVAILABLE)

    async def _propose(self, builder: TransactionBuilder, actor: str, request_id: str) -> TransactionResult:
        transaction = builder.build(request_id, actor, self._now_unix_ms())
        open_outcome = False
        for _ in range(AMBIGUOUS_TRIES_MAX):
            try:
                return await self._member.propose(transaction, PROPOSE_TIMEOUT_S)
            except Ambiguous:
                open_outcome = True  # the request id makes the repeat harmless
            except (NotLeader, Unavailable) as error:
                # Only of this try is it known that nothing came of it.
                raise Refused(UNKNOWN if open_outcome else NO_LEADER, Kind.UNAVAILABLE) from error
        raise Refused(UNKNOWN, Kind.UNAVAILABLE)
