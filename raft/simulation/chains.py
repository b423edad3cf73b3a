"""A client that proposes chains: changes of one register at once, of which each expects the one before it.

A chain is not tried again: a retry would find its first part done. What got no answer may happen or not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft.errors import NotLeader, Unavailable
from raft.requests import ProposeChain
from raft.simulation.checks import Violation
from raft.simulation.clients import PATIENCE_SECONDS, REGISTERS, Attempt, Hosts, Task
from raft.simulation.events import Events
from raft.simulation.linearizable import Kind, Operation
from raft.simulation.plan import Plan
from raft.transaction import TransactionBuilder, chained_version

LENGTH_MAX = 4
THINK_SECONDS = 0.4  # each chain is as much work as several clients'


@dataclass(eq=False)
class ChainClient:
    """Proposes one chain after the other while `active`, as the leader's writer does (daemon/leader/writer.py)."""

    name: str
    events: Events
    dice: random.Random
    plan: Plan
    hosts: Hosts
    active: bool = True
    tasks: list[Task] = field(default_factory=list)
    chain: list[Task] = field(default_factory=list)  # the one under way
    _leader: str = ""
    _refused: set[str] = field(default_factory=set)  # ids of what nobody took into a log

    @property
    def task(self) -> Task | None:
        """What it waits for."""
        return self.chain[0] if self.chain else None

    def begin(self) -> None:
        """Proposes the next chain to who led last, or to anybody."""
        if not self.active or self.chain:
            return
        dice, register, chain = self.dice, self.dice.choice(REGISTERS), self.chain
        transactions: list[Transaction] = []
        for position in range(dice.randint(2, LENGTH_MAX)):
            request_id, before = f"{self.name}-{len(self.tasks)}", chain[-1].value if chain else None
            kind: Kind = "compare-and-set" if chain else "write"
            transactions.append(_transaction(request_id, register, position))
            chain.append(Task(self, request_id, kind, register, request_id, before, b"", self.events.now))
            self.tasks.append(chain[-1])
        member = self._leader if self._leader and dice.random() < 0.9 else dice.choice(self.plan.names)
        request = ProposeChain(tuple(Attempt(task, member) for task in chain), tuple(transactions))
        self.events.after(dice.uniform(0.0005, 0.02), self._arrive, member, request, chain)
        self.events.after(PATIENCE_SECONDS, self._done, chain)

    def answered(self, attempt: Attempt, outcome: object, _seen: object) -> None:
        """An answer for one part arrives, however late."""
        task = attempt.task
        if isinstance(outcome, TransactionResult):
            self._leader = attempt.member
            task.succeeded, task.returned = outcome.code == TransactionResult.OK, self.events.now
            if not task.succeeded:
                raise Violation(f"{task.request_id}, a part of a chain, failed though nothing came between: {outcome}")
        elif isinstance(outcome, NotLeader | Unavailable):
            self._leader = (outcome.leader_id or "") if isinstance(outcome, NotLeader) else ""
            self._refused.add(task.request_id)
        if all(one.succeeded or one.request_id in self._refused for one in self.chain):
            self._done(self.chain)

    def history(self) -> list[tuple[str, Operation]]:
        """All parts with their register, but those of which it was said that nothing was changed."""
        return [
            (
                task.register,
                Operation(task.invoked, task.returned, task.kind, task.value, task.expected, task.succeeded),
            )
            for task in self.tasks
            if task.request_id not in self._refused
        ]

    def _arrive(self, member: str, request: ProposeChain, chain: list[Task]) -> None:
        if not self.hosts.ask(member, request):
            self._leader = ""
            self._refused.update(task.request_id for task in chain)
            self._done(chain)

    def _done(self, chain: list[Task]) -> None:
        if chain and chain is self.chain:
            self.chain = []
            self.events.after(self.dice.expovariate(1 / THINK_SECONDS), self.begin)


def _transaction(request_id: str, register: str, position: int) -> Transaction:
    wanted = objects.Tenant(meta=objects.Meta(id=register, name=register), description=f"{request_id} ")
    builder = TransactionBuilder()
    if position:
        wanted.meta.version = chained_version(position - 1)
        builder.update(wanted)
    else:
        builder.put(wanted)
    return builder.build(request_id, "chains", 1)
