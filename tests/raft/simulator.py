"""A whole cluster in one process: virtual time, a lossy network, power cuts; a seed reproduces a run.

Every member is a raft.driver.Driver over an in-memory SQLite file. A power cut drops the driver and
whatever its database had not committed. What must always hold is asserted after every step.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.codec import decode, encode
from raft.database import open_database
from raft.driver import Driver
from raft.entry import transaction_command
from raft.requests import AddVoter, Propose, ReadBarrier, RemoveVoter, Request
from raft.settings import Peer, RaftSettings
from raft.transaction import TransactionBuilder

STEP_SECONDS = 0.01


@dataclass
class Network:
    """How bad it is: a message's delay, loss and repetition, and whether order is kept."""

    delay_seconds: tuple[float, float] = (0.001, 0.02)
    loss: float = 0.0
    repeat: float = 0.0
    ordered: bool = True


@dataclass
class Member:
    node_id: str
    settings: RaftSettings
    database: sqlite3.Connection
    driver: Driver | None = None
    dead_until: float = 0.0


@dataclass
class Asked:
    """A request on its way, and what had been acknowledged before it was made."""

    name: str
    acknowledged_before: frozenset[str] = frozenset()


@dataclass
class Cluster:
    seed: int
    network: Network = field(default_factory=Network)
    names: str = "abc"
    settings: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 100.0
        self.wire: list[tuple[float, int, str, str, bytes]] = []
        self.sequence = 0
        self.last_at: dict[tuple[str, str], float] = defaultdict(float)
        self.cut: dict[frozenset[str], float] = {}
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, bytes] = {}
        self.answers: list[tuple[Asked, object]] = []
        self.proposed = 0
        self.members = {name: self._member(name) for name in self.names}
        for member in self.members.values():
            self.start(member)

    def _member(self, name: str) -> Member:
        settings = RaftSettings(
            Path("/nowhere"),
            name,
            "",
            1,
            bootstrap=name == self.names[0],
            **self.settings,  # type: ignore[arg-type]
        )
        return Member(name, settings, open_database(":memory:"))

    # ---- faults -------------------------------------------------------------------------------

    def start(self, member: Member) -> None:
        member.driver = Driver(member.settings, member.database, self.now, self.random.random)
        for other in self.members.values() if hasattr(self, "members") else ():
            self._connect(member.node_id, other.node_id)
            self._connect(other.node_id, member.node_id)

    def _connect(self, one: str, other: str) -> None:
        driver = self.members[one].driver
        if one != other and driver is not None and self.members[other].driver is not None:
            driver.connected(other, False)
            driver.connected(other, True)

    def power_cut(self, member: Member, seconds: float) -> None:
        if member.database.in_transaction:
            member.database.execute("rollback")
        member.driver, member.dead_until = None, self.now + seconds
        self.wire = [one for one in self.wire if member.node_id not in (one[2], one[3])]

    def partition(self, one: str, other: str, seconds: float) -> None:
        self.cut[frozenset((one, other))] = self.now + seconds

    # ---- requests -----------------------------------------------------------------------------

    def leader(self) -> Driver | None:
        """The leader of the newest term, if any."""
        leaders = [
            member.driver
            for member in self.members.values()
            if member.driver is not None and member.driver.consensus.leads
        ]
        return max(leaders, key=lambda one: one.consensus.algorithm.term(), default=None)

    def ask(self, driver: Driver, request: Request) -> None:
        driver.request(request)

    def propose(self, driver: Driver) -> None:
        self.proposed += 1
        name = f"t{self.proposed}"
        tenant = objects.Tenant(meta=objects.Meta(id=name, name=name), description="x" * 50)
        transaction = TransactionBuilder().create(tenant).build(f"r{name}", "test", 1)
        self.ask(driver, Propose(Asked(name), transaction_command(transaction)))

    def read(self, driver: Driver) -> None:
        self.ask(driver, ReadBarrier(Asked("read", frozenset(self.acknowledged))))

    def add_voter(self, driver: Driver, name: str) -> None:
        self.ask(driver, AddVoter(Asked(f"add {name}"), Peer(name, "", 1)))

    def remove_voter(self, driver: Driver, name: str) -> None:
        self.ask(driver, RemoveVoter(Asked(f"remove {name}"), name))

    # ---- time ---------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()

    def run_until(self, condition: object, seconds_max: float = 30.0) -> None:
        assert callable(condition)
        end = self.now + seconds_max
        while not condition():
            assert self.now < end, f"seed {self.seed}: not within {seconds_max} s of simulated time"
            self.step()

    def step(self) -> None:
        self.now += STEP_SECONDS
        for member in self.members.values():
            if member.driver is None and member.dead_until <= self.now:
                self.start(member)
        due = sorted(one for one in self.wire if one[0] <= self.now)
        self.wire = [one for one in self.wire if one[0] > self.now]
        for _, _, sender, receiver, content in due:
            driver = self.members[receiver].driver
            if driver is not None and self.cut.get(frozenset((sender, receiver)), 0) <= self.now:
                driver.deliver(sender, decode(content), self.now)
        for member in self.members.values():
            if member.driver is not None:
                self._turn(member, member.driver)

    def _turn(self, member: Member, driver: Driver) -> None:
        before = driver.consensus.algorithm.applied_index()
        turn = driver.turn(self.now)
        for receiver, message in turn.outbox:
            self._send(member.node_id, receiver, encode(message))
        for ticket, outcome in turn.answers:
            self._answered(driver, ticket, outcome)
        algorithm = driver.consensus.algorithm
        if driver.consensus.leads:
            first = self.leaders.setdefault(algorithm.term(), member.node_id)
            assert first == member.node_id, f"seed {self.seed}: two leaders in term {algorithm.term()}"
        if not turn.restored:
            for index in range(max(before + 1, driver.journal.first_index), algorithm.applied_index() + 1):
                command = driver.journal.entries(index, 1)[0][0]
                assert self.applied.setdefault(index, command) == command, f"seed {self.seed}: fork at {index}"

    def _send(self, sender: str, receiver: str, content: bytes) -> None:
        key = (sender, receiver)
        for _ in range(2 if self.random.random() < self.network.repeat else 1):
            if self.random.random() < self.network.loss:
                continue
            at = self.now + self.random.uniform(*self.network.delay_seconds)
            if self.network.ordered:
                at = self.last_at[key] = max(self.last_at[key], at)
            self.sequence += 1
            self.wire.append((at, self.sequence, sender, receiver, content))

    def _answered(self, driver: Driver, ticket: object, outcome: object) -> None:
        assert isinstance(ticket, Asked)
        self.answers.append((ticket, outcome))
        if isinstance(outcome, TransactionResult):
            assert outcome.code == TransactionResult.OK, outcome
            self.acknowledged.add(ticket.name)
        elif outcome is None and ticket.name == "read":
            missing = [one for one in ticket.acknowledged_before if not self._has(driver, one)]
            assert not missing, f"seed {self.seed}: a current read lacks {missing}"
        else:
            self.refused += 1

    @staticmethod
    def _has(driver: Driver, name: str) -> bool:
        return driver.store.get(objects.Tenant, name) is not None

    # ---- verdict ------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults; everybody is up."""
        self.network = Network()
        self.cut.clear()
        for member in self.members.values():
            member.dead_until = min(member.dead_until, self.now)

    def assert_whole(self) -> None:
        """After some time without faults all members agree and hold every acknowledged write."""
        self.run(8.0)
        leader = self.leader()
        assert leader is not None, f"seed {self.seed}: no leader after healing"
        self.propose(leader)
        last = f"t{self.proposed}"
        voters = leader.consensus.voters
        self.run_until(
            lambda: all(
                member.driver is not None and self._has(member.driver, last)
                for name, member in self.members.items()
                if name in voters
            )
        )
        for name in voters:
            driver = self.members[name].driver
            assert driver is not None
            lost = [one for one in self.acknowledged if not self._has(driver, one)]
            assert not lost, f"seed {self.seed}: {name} lost acknowledged {lost}"
