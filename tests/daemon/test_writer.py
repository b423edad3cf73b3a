"""What the leader's writer says of a change whose fate is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import trio

from daemon.errors import Refused
from daemon.leader.writer import NO_LEADER, UNKNOWN, Writer
from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft.errors import Ambiguous, NotLeader, NotServed, Unavailable
from raft.member import Member
from raft.store import Store
from raft.transaction import TransactionBuilder


class Answers:
    """A member that answers proposals as it is told."""

    def __init__(self, *answers: NotServed | TransactionResult) -> None:
        self.store = Store()
        self.request_ids: list[str] = []
        self._answers: Iterator[NotServed | TransactionResult] = iter(answers)

    async def propose(self, transaction: Transaction, _timeout_s: float) -> TransactionResult:
        await trio.lowlevel.checkpoint()
        self.request_ids.append(transaction.request_id)
        answer = next(self._answers)
        if isinstance(answer, NotServed):
            raise answer
        return answer


def commit(*answers: NotServed | TransactionResult) -> Answers:
    member = Answers(*answers)
    ids = iter("abcdef")
    writer = Writer(cast(Member, member), lambda: 1, lambda: next(ids))
    tenant = objects.Tenant(meta=objects.Meta(id="t", name="t"))
    trio.run(writer.commit, lambda _store, _now, _id: (TransactionBuilder().create(tenant), None), "test")
    return member


OK = TransactionResult(code=TransactionResult.OK, revision=1)


def test_a_change_that_was_not_proposed_changed_nothing() -> None:
    with pytest.raises(Refused) as refused:
        commit(NotLeader(None))
    assert refused.value.message == NO_LEADER


@pytest.mark.parametrize("then", [NotLeader("b"), Unavailable("stopped")])
def test_a_change_that_may_be_in_the_log_is_never_called_unchanged(then: NotServed) -> None:
    with pytest.raises(Refused) as refused:
        commit(Ambiguous("leadership was lost"), then)
    assert refused.value.message == UNKNOWN
    assert "nothing was changed" not in UNKNOWN


def test_a_repeat_has_the_request_id_of_the_first_try() -> None:
    member = commit(Ambiguous("late"), Ambiguous("late"), OK)
    assert len(set(member.request_ids)) == 1 and len(member.request_ids) == 3
