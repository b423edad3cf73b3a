"""A majority that is up elects a leader, whatever terms, votes and logs its members come back with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from raft.journal import Journal
from raft.simulation.cluster import Cluster
from raft.simulation.member import SimulatedMember
from raft.simulation.plan import CLASSES, plan_of
from tests.raft.scenario import entries_of

ELECTION_SECONDS_MAX = 20.0  # of 3000 random states the slowest took 4
DOWN_SECONDS = 0.1
RANDOM_STATES = 150
LOGS = ((2,), (2, 2), (3,))


@dataclass(frozen=True)
class Found:
    """What a member finds on its disk: its term, its vote in it, the terms of its entries that are not committed."""

    term: int
    voted: str | None
    log: tuple[int, ...]


def test_two_voters_elect_a_leader() -> None:
    """Each needs the other, in whichever term and with whichever vote and log that one is."""
    each = [[Found(term, vote, log) for term in (3, 4) for vote in (None, name, "zz") for log in LOGS] for name in "ab"]
    states = [dict(zip("ab", found, strict=True)) for found in itertools.product(*each)]
    failed = [found for found in states if not _elects(2, found)]
    assert not failed, "no leader from:\n" + "\n".join(map(str, failed[:5]))


def test_any_majority_elects_a_leader() -> None:
    failed = {}
    for seed in (random.SystemRandom().randrange(10**9) for _ in range(RANDOM_STATES)):
        voters, found = _drawn(random.Random(seed))
        if not _elects(voters, found):
            failed[seed] = (voters, found)
    assert not failed, "no leader from:\n" + "\n".join(f"{seed}: {failed[seed]}" for seed in failed)


def _drawn(dice: random.Random) -> tuple[int, dict[str, Found]]:
    """How many vote, and what those find that are up. Entries of one term and index are the same everywhere."""
    logs: list[tuple[int, ...]] = [(2, 2, 2)]
    for term in (3, 4):
        leader = dice.choice(logs)
        logs.append(leader[: dice.randint(0, len(leader))] + (term,) * dice.randint(1, 3))
    voters = dice.choice((2, 3, 3, 4, 5))
    names = "abcde"[:voters]
    found = {}
    for name in sorted(dice.sample(names, dice.randint(voters // 2 + 1, voters))):
        log = dice.choice(logs)
        vote = dice.choice((None, name, dice.choice(names), "zz"))
        found[name] = Found(dice.choice((4, 5, 5, 6)), vote, log[: dice.randint(0, len(log))])
    return voters, found


def _elects(voters: int, found: Mapping[str, Found]) -> bool:
    """Whether members that come back with these disks, of so many voters, get a leader that can commit."""
    names = "abcde"[:voters]
    calm = replace(plan_of(1, CLASSES), names=names, voters=voters, drift=dict.fromkeys(names, 1.0))
    cluster = Cluster(calm)
    try:
        for member in cluster.members.values():
            cluster.power_cut(member, DOWN_SECONDS if member.name in found else 2 * ELECTION_SECONDS_MAX)
            if member.name in found:
                _write(member, found[member.name])

        def led() -> bool:
            leader = cluster.leader()
            if leader is None or leader.driver is None:
                return False
            return leader.driver.consensus.algorithm.commit_index() == leader.driver.journal.last_index

        return cluster.events.run_until(ELECTION_SECONDS_MAX, led)
    finally:
        cluster.close()


def _write(member: SimulatedMember, found: Found) -> None:
    journal = Journal(member.disk.database)
    for entry in entries_of(journal.last_index + 1, list(found.log)):
        journal.add(*entry)
    journal.setCurrentTerm(found.term, found.voted)
    member.disk.execute("begin")
    journal.flush()
    member.disk.execute("commit")
