"""A majority that is up elects a leader, whatever terms, votes and logs its members come back with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from raft.journal import Journal
from raft.simulation.cluster import Cluster
from raft.simulation.member import SimulatedMember
from raft.simulation.plan import CLASSES, plan_of
from tests.raft.scenario import entries_of

ELECTION_SECONDS_MAX = 20.0
DOWN_SECONDS = 0.1


@dataclass(frozen=True)
class Found:
    """What a member finds on its disk: its term, its vote in it, the terms of its entries that are not committed."""

    term: int
    voted: str | None
    log: tuple[int, ...]


def _each(voted: str, newest: int) -> list[Found]:
    logs = ((2,), (2, 2), (3,))
    return [Found(term, vote, log) for term in (3, newest) for vote in (None, voted, "zz") for log in logs]


@pytest.mark.parametrize("newest", [4, 7])
@pytest.mark.parametrize("voters", [2, 3])
def test_two_voters_elect_a_leader(voters: int, newest: int) -> None:
    """Of three the third is down, and may have led or voted in any of the terms."""
    failed = []
    for number, found in enumerate(itertools.product(_each("a", newest), _each("b", newest))):
        if not _elects(number, voters, found):
            failed.append(found)
    assert not failed, "no leader from:\n" + "\n".join(map(str, failed[:5]))


def _elects(seed: int, voters: int, found: tuple[Found, ...]) -> bool:
    calm = replace(plan_of(seed, CLASSES), names="abc"[:voters], voters=voters, real_files=False, codec=False)
    cluster = Cluster(replace(calm, drift=dict.fromkeys("abc", 1.0)))
    try:
        for member, state in zip(cluster.members.values(), found, strict=False):
            cluster.power_cut(member, DOWN_SECONDS)
            _write(member, state)
        for member in list(cluster.members.values())[len(found) :]:
            cluster.power_cut(member, 2 * ELECTION_SECONDS_MAX)

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
