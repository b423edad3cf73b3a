"""One seed from its plan to the verdict: a storm, then fine weather in which the cluster must be well."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from raft.entry import MEMBERSHIP
from raft.journal import Journal
from raft.messages import VoteRequest
from raft.rules import ALL_RULES, Rules
from raft.simulation.chains import ChainClient
from raft.simulation.checks import Violation
from raft.simulation.clients import LARGE_CHARACTERS, POISON, REGISTERS, Client
from raft.simulation.cluster import Cluster
from raft.simulation.faults import Faults
from raft.simulation.linearizable import Operation, TooComplex, explain
from raft.simulation.member import SimulatedMember
from raft.simulation.plan import Plan

RECOVERY_SECONDS_MAX = 20.0
AWAY_EVERY = 4  # one run in so many tries how a member comes back
AWAY_SECONDS = 5.0
KNOCK_SECONDS = 0.3


@dataclass(frozen=True)
class Result:
    """What became of a run; `violation` is empty where all promises held."""

    violation: str = ""
    operations: int = 0
    committed: int = 0
    terms: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # what happened how often
    undecided: int = 0  # registers whose history was too complex to judge


def run(plan: Plan, rules: Rules = ALL_RULES, show: bool = False) -> Result:
    """Runs a plan to its end or its first violation."""
    cluster = Cluster(plan, rules, show)
    story = _Story(cluster)
    violation, undecided = "", 0
    try:
        try:
            story.storm()
            story.recover()
            story.stay_calm()
        except _Lost as found:
            cluster.note(str(found))
            cluster.counts["runs that lost a majority's disks"] = 1
        undecided = story.judge()
    except Violation as found:
        violation = str(found)
        cluster.note(f"VIOLATION: {found}")
    finally:
        cluster.close()
    checks = cluster.checks
    counts = cluster.counts
    counts["elections won"] = len(checks.leaders)
    committed = [command for _, command in checks.committed.values()]
    counts["entries committed"] = len(committed) - 1
    counts["large entries committed"] = sum(len(command) > LARGE_CHARACTERS for command in committed)
    counts["changes of the voters committed"] = sum(command[0] == MEMBERSHIP for command in committed) - 1
    counts["commands that make no sense committed"] = sum(command.startswith(POISON) for command in committed)
    counts["power cuts that tore files"] = sum(member.disk.torn for member in cluster.members.values())
    counts["runs with clocks that drift"] = "drift" in plan.classes
    tasks = [task for client in story.clients for task in client.tasks]
    counts["operations acknowledged"] = sum(task.succeeded is not None for task in tasks)
    counts["operations without outcome"] = sum(task.succeeded is None for task in tasks)
    counts["parts of chains acknowledged"] = sum(
        task.succeeded is True for client in story.clients if isinstance(client, ChainClient) for task in client.tasks
    )
    counts["current reads"] = sum(task.kind == "read" and task.succeeded is True for task in tasks)
    counts["histories judged"] = len(REGISTERS) - undecided if not violation else 0
    counts["histories too complex to judge"] = undecided
    return Result(violation, len(story.operations()), len(checks.committed), len(checks.leaders), counts, undecided)


class _Lost(Exception):
    """A majority's disks are gone for good: nothing but `fairway raft recover` could help, which no seed tries."""


class _Story:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.events, self.plan = cluster, cluster.events, cluster.plan
        self.faults = Faults(cluster)
        self.clients: list[Client | ChainClient] = [self._client(number) for number in range(self.plan.clients)]
        if "chain" in self.plan.classes:
            dice = random.Random(f"chains {self.plan.seed}")
            self.clients.append(ChainClient("chains", self.events, dice, self.plan, self.cluster))
        for client in self.clients:
            self.events.after(client.dice.random(), client.begin)

    def _client(self, number: int) -> Client:
        name = f"client{number}"
        dice = random.Random(f"{name} {self.plan.seed}")
        return Client(name, self.events, dice, self.plan, self.cluster)

    def storm(self) -> None:
        self.events.run_until(self.plan.storm_seconds)

    def recover(self) -> None:
        """Once the faults stop there is a leader, every request ends, and all members have everything."""
        self.faults.end()
        for client in self.clients:
            client.active = False
        end = self.events.now + RECOVERY_SECONDS_MAX
        if not self.events.run_until(end, self._well):
            self._excuse()
            raise Violation(f"not well {RECOVERY_SECONDS_MAX:.0f} s after the last fault: {self._what_is_wrong()}")
        # One more operation of each client after the storm: the cluster does not only look well.
        for client in self.clients:
            client.active = True
            client.begin()
            client.active = False
        if not self.events.run_until(self.events.now + RECOVERY_SECONDS_MAX, self._well):
            self._excuse()
            raise Violation(f"requests after the storm hang: {self._what_is_wrong()}")

    def stay_calm(self) -> None:
        """Neither a stranger that wants to lead nor a member that was away costs the cluster its leader."""
        if not (self.plan.strangers or self.plan.seed % AWAY_EVERY == 0):
            return
        # Who has yet to get its vote back may hear no leader: a stranger raises its term, and as soon as the leader
        # sends it the log that deposes the leader, as Raft wants it.
        if not self.events.run_until(self.events.now + RECOVERY_SECONDS_MAX, self._repaired):
            self._excuse()
            raise Violation(f"votes of lost disks are not given anew: {self._what_is_not_repaired()}")
        self.events.run_until(self.events.now + 1.0)
        leader = self.cluster.leader()
        if leader is None or leader.driver is None:
            raise Violation("there is no leader in fine weather")
        term = leader.driver.consensus.algorithm.term()
        if self.plan.strangers:
            for number in range(5):
                self.events.after(number * KNOCK_SECONDS, self._knock, term + 1 + number)
            self.events.run_until(self.events.now + 5 * KNOCK_SECONDS + 0.2)
        if self.plan.seed % AWAY_EVERY == 0 and len(leader.driver.consensus.voters) > 2:
            self._send_away(leader)
        after = self.cluster.leader()
        if after is not leader or leader.driver.consensus.algorithm.term() != term:
            raise Violation(f"{leader.name}, leader of term {term}, was deposed in fine weather")
        if not self.events.run_until(self.events.now + RECOVERY_SECONDS_MAX, self._well):
            raise Violation(f"not well after a calm time: {self._what_is_wrong()}")

    def _knock(self, term: int) -> None:
        for name in self.plan.names:
            self.cluster.inject(name, VoteRequest(term, 10**6, term))

    def _send_away(self, leader: SimulatedMember) -> None:
        assert leader.driver is not None
        away = next(name for name in sorted(leader.driver.consensus.voters) if name != leader.name)
        for other in self.plan.names:
            if other != away:
                self.cluster.network.block(away, other, AWAY_SECONDS, False)
                self.cluster.network.block(other, away, AWAY_SECONDS, False)
        self.events.run_until(self.events.now + AWAY_SECONDS + 3.0)

    def _excuse(self) -> None:
        """Where the newest change of the voters that a member knows left no majority of logs, nobody can lead.

        A member may lose its disk in the moment between its answer and the entry that gives it a vote, or takes
        that of another.
        """
        drivers = [member.driver for member in self.cluster.members.values() if member.driver is not None]
        journals = [driver.journal for driver in drivers if driver.journal.membership]
        newest = max(journals, key=_age_of_membership)
        lost = [peer.node_id for peer in newest.membership if self.cluster.lost(peer)]
        if 2 * len(lost) >= len(newest.membership):
            raise _Lost(f"{', '.join(lost)} lost their disks, of {len(newest.membership)} voters: no majority is left")

    # ---- verdict ------------------------------------------------------------------------------

    def _well(self) -> bool:
        return not self._what_is_wrong()

    def _repaired(self) -> bool:
        return not self._what_is_not_repaired()

    def _what_is_not_repaired(self) -> str:
        if self.faults.repairing:
            return f"{', '.join(sorted(self.faults.repairing))} did not get a vote"
        return self._what_is_wrong()

    def _what_is_wrong(self) -> str:
        if busy := [client.name for client in self.clients if client.task is not None]:
            return f"{', '.join(busy)} got no answer"
        leader = self.cluster.leader()
        if leader is None or leader.driver is None:
            return "there is no leader"
        consensus, last = leader.driver.consensus, leader.driver.journal.last_index
        if consensus.algorithm.commit_index() != last:
            return f"{leader.name} has entries that are not committed"
        for name in sorted(consensus.voters | consensus.learners.keys()):
            driver = self.cluster.members[name].driver
            if driver is None or driver.consensus.algorithm.applied_index() != last:
                return f"{name} has not applied entry {last}"
        return ""

    def operations(self) -> list[tuple[str, Operation]]:
        return [one for client in self.clients for one in client.history()]

    def judge(self) -> int:
        """Linearizability of each register; how many could not be judged."""
        by_register: dict[str, list[Operation]] = defaultdict(list)
        for register, operation in self.operations():
            by_register[register].append(operation)
        undecided = 0
        for register, history in by_register.items():
            try:
                if explain(history) is None:
                    raise Violation(f"the history of {register} is not linearizable: {_told(history)}")
            except TooComplex:
                undecided += 1
        return undecided


def _age_of_membership(journal: Journal) -> tuple[int, int]:
    """Term and index of the entry that set it; of the log's base where the entry is not kept."""
    index = max(journal.membership_index, journal.first_index)
    return journal.term_at(index) or 0, index


def _told(history: list[Operation]) -> str:
    lines = []
    for one in sorted(history, key=lambda operation: operation.invoked):
        outcome = {True: "", False: " refused", None: " unknown"}[one.succeeded]
        change = f"{one.expected} -> {one.value}" if one.kind == "compare-and-set" else f"{one.value}"
        lines.append(f"\n    {one.invoked:8.3f} to {one.returned:8.3f}  {one.kind} {change}{outcome}")
    return "".join(lines)
