"""What the leader's writer says of a change whose fate is not known, and changes that are proposed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pytest
import trio
import trio.testing

from daemon.errors import Kind, Refused
from daemon.leader.writer import NO_LEADER, UNKNOWN, Writer
from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft.errors import Ambiguous, NotLeader, NotServed, Unavailable
from raft.features import FEATURE_LEVEL
from raft.member import Member
from raft.store import Store
from raft.transaction import TransactionBuilder, resolved


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


class Log:
    """A leader without a network: proposals get their places at once, are applied together, and then answered."""

    def __init__(self) -> None:
        self.store, self.applied = Store(), Store()
        self.index = 10
        self.together: list[int] = []  # how many came at once
        self.lost: set[str] = set()  # names of tenants whose transactions are overtaken
        self.unheard = 0  # so many answers to several at once do not arrive

    async def propose(self, transaction: Transaction, _timeout_s: float) -> TransactionResult:
        await trio.testing.wait_all_tasks_blocked()
        self.together.append(1)
        self._overtake(transaction)
        return self._apply(transaction)

    def propose_chain(self, transactions: Sequence[Transaction], _timeout_s: float) -> list[Answer]:
        self.together.append(len(transactions))
        indexes: list[int] = []
        answers = []
        for transaction in transactions:
            self._overtake(transaction)
            answers.append(Answer(self._apply(resolved(transaction, indexes)), self))
            indexes.append(self.index)
        return answers

    def _overtake(self, transaction: Transaction) -> None:
        if any(operation.id in self.lost for operation in transaction.operations):
            self.lost.clear()
            other = objects.Tenant(meta=objects.Meta(id="other", name="first"))
            self._apply(TransactionBuilder().put(other).build("", "x", 1))

    def _apply(self, transaction: Transaction) -> TransactionResult:
        self.index += 1
        result, changes = self.applied.apply(transaction, self.index)
        self.store.absorb(changes, self.applied.revision)
        return result


class Answer:
    def __init__(self, result: TransactionResult, log: Log) -> None:
        self._result, self._log = result, log

    async def result(self) -> TransactionResult:
        await trio.testing.wait_all_tasks_blocked()
        if self._log.unheard > 0:
            self._log.unheard -= 1
            raise Ambiguous("late")
        return self._result

    def close(self) -> None:
        pass


Planned = tuple[TransactionBuilder, str]


def tenant(identifier: str, name: str) -> Callable[[Store, int, Callable[[], str]], Planned]:
    """Creates a tenant, or refuses where its name is taken."""

    def plan(store: Store, _now: int, _id: Callable[[], str]) -> Planned:
        if store.table(objects.Tenant).unique("name", name) is not None:
            raise Refused(f"{name} is taken", Kind.CONFLICT)
        return TransactionBuilder().create(objects.Tenant(meta=objects.Meta(id=identifier, name=name))), identifier

    return plan


def counted(store: Store, _now: int, _id: Callable[[], str]) -> Planned:
    """Adds one letter to the name of the tenant that all of them change."""
    before = store.get(objects.Tenant, "count")
    after = objects.Tenant()
    if before is None:
        after.meta.id, after.meta.name = "count", "x"
        return TransactionBuilder().create(after), "x"
    after.CopyFrom(before)
    after.meta.name += "x"
    return TransactionBuilder().update(after), after.meta.name


def together(log: Log, *plans: Callable[[Store, int, Callable[[], str]], Planned], request_id: str = "") -> list[str]:
    """What each caller got when all but the first come while the first is under way."""
    got = [""] * len(plans)
    numbers = iter(range(1_000))

    async def main() -> None:
        writer = Writer(cast(Member, log), lambda: 1, lambda: f"id-{next(numbers)}")

        async def caller(number: int) -> None:
            try:
                got[number], _ = await writer.commit(plans[number], "test", request_id and f"{request_id}{number}")
            except Refused as refused:
                got[number] = refused.message

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller, 0)
            await trio.sleep(0)
            for number in range(1, len(plans)):
                nursery.start_soon(caller, number)

    trio.run(main)
    return got


def test_changes_that_gather_are_proposed_together_each_upon_the_one_before() -> None:
    log = Log()
    assert sorted(together(log, *[counted] * 20), key=len) == ["x" * count for count in range(1, 21)]
    assert len(log.together) <= 3
    stored = log.store.get(objects.Tenant, "count")
    assert stored is not None and stored.meta.name == "x" * 20
    assert stored.meta.version == log.store.revision < 1_000


def test_a_refusal_that_speaks_of_a_change_under_way_waits_for_it() -> None:
    log = Log()
    got = together(log, tenant("first", "first"), tenant("a", "same"), tenant("b", "same"), tenant("c", "c"))
    assert sorted(got) == ["a", "c", "first", "same is taken"] or sorted(got) == ["b", "c", "first", "same is taken"]


def test_what_was_planned_upon_a_change_that_failed_is_planned_anew() -> None:
    log = Log()
    log.lost = {"a", "b"}  # whichever of them comes first: trio starts tasks in any order
    got = together(log, tenant("first", "zero"), tenant("a", "first"), tenant("b", "first"), tenant("c", "c"))
    # Somebody else took the name: one is told by the store, the other not by what the first would have written.
    assert got[0] == "first" and got[3] == "c"
    assert all("taken" in one for one in got[1:3])
    other = log.store.get(objects.Tenant, "other")
    assert other is not None and other.meta.name == "first"


def test_answers_that_are_lost_are_found_by_their_request_ids() -> None:
    log = Log()
    log.unheard = 3
    got = together(log, *[counted] * 5, request_id="mine")
    assert sorted(got, key=len) == ["x" * count for count in range(1, 6)]
    stored = log.store.get(objects.Tenant, "count")
    assert stored is not None and stored.meta.name == "xxxxx"


def test_a_change_that_older_hosts_would_not_understand_is_not_proposed() -> None:
    log = Log()

    def later(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, str]:
        builder, value = tenant("later", "later")(store, now_unix_ms, new_id)
        return builder.needs(FEATURE_LEVEL + 1), value

    got = together(log, tenant("first", "first"), later, tenant("c", "c"))
    assert (got[0], got[2]) == ("first", "c")
    assert f"needs feature level {FEATURE_LEVEL + 1}, the cluster is at 1" in got[1]
    assert log.store.get(objects.Tenant, "later") is None
