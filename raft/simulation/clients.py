"""Clients that read, write and compare-and-set a few registers, and remember what they saw when.

A client keeps to one operation until it knows the outcome, and asks again with the same request id: whoever
leads, after restarts, and sometimes two members at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.driver import Driver
from raft.entry import TRANSACTION, transaction_command
from raft.errors import NotLeader
from raft.requests import Asked, Propose, ReadBarrier, Request
from raft.simulation.events import Events
from raft.simulation.linearizable import FOREVER, Kind, Operation
from raft.simulation.plan import Plan
from raft.transaction import TransactionBuilder

REGISTERS = ("r1", "r2", "r3")
PATIENCE_SECONDS = 1.0
THINK_SECONDS = 0.08
GIVES_UP_SHARE = 0.03  # of the attempts that were in vain
LARGE_CHARACTERS = 6000
POISON = bytes([TRANSACTION]) + b"\xff"  # how a command begins that nobody can read


class Hosts(Protocol):
    """What a client knows of the cluster."""

    def ask(self, name: str, request: Asked) -> bool:
        """Hands a request to a host; False where nobody answers there."""
        ...


class Asking(Protocol):
    """Who waits for an answer."""

    def answered(self, attempt: Attempt, outcome: object, seen: tuple[str | None, int]) -> None:
        """An answer arrives; `seen` is the register's value and version for a read."""
        ...


@dataclass(eq=False)
class Task:
    """One operation of one client, from its first attempt to its outcome."""

    client: Asking
    request_id: str
    kind: Kind
    register: str
    value: str | None
    expected: str | None
    command: bytes
    invoked: float
    returned: float = FOREVER
    succeeded: bool | None = None
    poison: bool = False


@dataclass(eq=False)
class Probe:
    """The ticket of a current read that nobody waits for: the checks look how current the answer is."""

    committed_before: int = field(default=0, kw_only=True)  # newest committed entry of the cluster when it arrived


@dataclass(eq=False)
class Attempt(Probe):
    """The ticket of one request."""

    task: Task
    member: str

    @property
    def request_id(self) -> str:
        return self.task.request_id


@dataclass(eq=False)
class Client:
    """Does one thing after the other while `active`."""

    name: str
    events: Events
    dice: random.Random
    plan: Plan
    hosts: Hosts
    active: bool = True
    task: Task | None = None
    tasks: list[Task] = field(default_factory=list)
    _leader: str = ""
    _seen: dict[str, tuple[str | None, int]] = field(default_factory=dict)  # value and version last seen
    _attempts: int = 0

    def begin(self) -> None:
        """Starts the next operation."""
        if not self.active or self.task is not None:
            return
        number, dice = len(self.tasks), self.dice
        register, request_id = dice.choice(REGISTERS), f"{self.name}-{number}"
        kind: Kind = dice.choice(("read", "write", "compare-and-set", "compare-and-set"))
        known, version = self._seen.get(register, (None, 0))
        value, command, poison = None, b"", False
        if kind != "read":
            value = request_id
            filling = "." * LARGE_CHARACTERS if dice.random() < self.plan.large_share else ""
            wanted = objects.Tenant(meta=objects.Meta(id=register, name=register), description=f"{value} {filling}")
            builder = TransactionBuilder()
            if kind == "write":
                builder.put(wanted)
            elif version:
                wanted.meta.version = version
                builder.update(wanted)
            else:
                builder.create(wanted)
            command = transaction_command(builder.build(request_id, self.name, 1))
            poison = dice.random() < self.plan.poison_share
            if poison:
                command = POISON + b"\xff" * dice.randint(0, 8)
        expected = known if kind == "compare-and-set" else None
        self.task = Task(self, request_id, kind, register, value, expected, command, self.events.now, poison=poison)
        self.tasks.append(self.task)
        self._try(self.task)

    def answered(self, attempt: Attempt, outcome: object, seen: tuple[str | None, int]) -> None:
        """An answer arrives; `seen` is the register's value and version for a read."""
        task = attempt.task
        if task is not self.task:
            return
        if isinstance(outcome, TransactionResult):
            self._leader = attempt.member
            task.succeeded = outcome.code == TransactionResult.OK
            if task.succeeded:
                self._seen[task.register] = (task.value, outcome.revision)
            self._done(task)
        elif outcome is None:
            self._leader = attempt.member
            task.value, task.succeeded = seen[0], True
            self._seen[task.register] = seen
            self._done(task)
        else:
            self._leader = (outcome.leader_id or "") if isinstance(outcome, NotLeader) else ""
            self.events.after(self.dice.uniform(0.01, 0.15), self._try_again, task, self._attempts)

    def history(self) -> list[tuple[str, Operation]]:
        """Its operations with the register of each; a read without outcome and poison say nothing."""
        return [
            (
                task.register,
                Operation(task.invoked, task.returned, task.kind, task.value, task.expected, task.succeeded),
            )
            for task in self.tasks
            if not task.poison and (task.kind != "read" or task.succeeded)
        ]

    def _done(self, task: Task) -> None:
        task.returned, self.task = self.events.now, None
        self.events.after(self.dice.expovariate(1 / THINK_SECONDS), self.begin)

    def _try(self, task: Task) -> None:
        self._attempts += 1
        twice = self.dice.random() < 0.05
        for _ in range(2 if twice else 1):
            member = self._leader if self._leader and self.dice.random() < 0.9 else self.dice.choice(self.plan.names)
            attempt = Attempt(task, member)
            request = ReadBarrier(attempt) if task.kind == "read" else Propose(attempt, task.command)
            self.events.after(self.dice.uniform(0.0005, 0.02), self._arrive, member, request, task, self._attempts)
        self.events.after(PATIENCE_SECONDS, self._try_again, task, self._attempts)

    def _arrive(self, member: str, request: Request, task: Task, attempts: int) -> None:
        if not self.hosts.ask(member, request):
            self._leader = ""
            self.events.after(self.dice.uniform(0.01, 0.1), self._try_again, task, attempts)

    def _try_again(self, task: Task, attempts: int) -> None:
        if task is not self.task or attempts != self._attempts:
            return
        if self.active and self.dice.random() < GIVES_UP_SHARE:
            # What it wanted may happen even so, at any time from now on.
            self.task = None
            self.events.after(self.dice.expovariate(1 / THINK_SECONDS), self.begin)
            return
        self._try(task)


def register_of(driver: Driver, register: str) -> tuple[str | None, int]:
    """A register's value and version in a member's store."""
    stored = driver.store.get(objects.Tenant, register)
    return (stored.description.split(" ", 1)[0], stored.meta.version) if stored is not None else (None, 0)
