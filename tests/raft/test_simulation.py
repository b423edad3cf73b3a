"""Whole clusters under faults, in simulated time: nothing acknowledged is lost, nothing forks."""

from __future__ import annotations

import pytest

from proto import objects_pb2 as objects
from raft.settings import Peer
from tests.raft.simulator import Cluster, Network

SMALL = {
    "log_entries_kept_max": 20,
    "state_flush_objects": 10,
    "snapshot_chunk_bytes": 2000,
    "snapshot_resend_ms": 500,
}


def grown(seed: int, network: Network | None = None, settings: dict[str, int] | None = None) -> Cluster:
    """Three voters that were one: the first made the cluster, the others got their votes from it."""
    cluster = Cluster(seed, settings=settings or {})
    cluster.run_until(lambda: cluster.leader() is not None)
    for name in cluster.names[1:]:
        leader = cluster.leader()
        assert leader is not None
        cluster.add_voter(leader, name)
        wanted = f"add {name}"
        cluster.run_until(lambda wanted=wanted: any(ticket.name == wanted for ticket, _ in cluster.answers))
    cluster.run(1.0)
    if network is not None:
        cluster.network = network
    return cluster


def bad_weather(cluster: Cluster, seconds: float) -> None:
    """Writes, reads, partitions, power cuts and changes of the leader at random."""
    dice = cluster.random
    end = cluster.now + seconds
    while cluster.now < end:
        cluster.step()
        leader = cluster.leader()
        if leader is not None and dice.random() < 0.3:
            cluster.propose(leader)
        if dice.random() < 0.05:
            live = [member.driver for member in cluster.members.values() if member.driver is not None]
            if live:
                cluster.read(dice.choice(live))
                cluster.propose(dice.choice(live))
        if dice.random() < 0.01:
            one, other = dice.sample(cluster.names, 2)
            cluster.partition(one, other, dice.uniform(0.2, 4.0))
        if dice.random() < 0.006:
            member = cluster.members[dice.choice(cluster.names)]
            if member.driver is not None:
                cluster.power_cut(member, dice.uniform(0.05, 3.0))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_acknowledged_is_lost_in_bad_weather(seed: int) -> None:
    cluster = grown(seed, Network(delay_seconds=(0.001, 0.05), loss=0.02 * (seed % 3)), SMALL)
    bad_weather(cluster, 25.0)
    assert len(cluster.acknowledged) > 20
    cluster.heal()
    cluster.assert_whole()


@pytest.mark.parametrize("seed", range(100, 104))
def test_late_repeated_and_reordered_messages_do_no_harm(seed: int) -> None:
    network = Network(delay_seconds=(0.001, 0.3), loss=0.05, repeat=0.2, ordered=False)
    cluster = grown(seed, network, SMALL)
    bad_weather(cluster, 20.0)
    assert len(cluster.acknowledged) > 5
    cluster.heal()
    cluster.assert_whole()


@pytest.mark.parametrize("seed", range(200, 203))
def test_all_members_lose_power_at_once(seed: int) -> None:
    cluster = grown(seed, settings=SMALL)
    for _ in range(3):
        for _ in range(40):
            leader = cluster.leader()
            if leader is not None:
                cluster.propose(leader)
            cluster.step()
        for member in cluster.members.values():
            cluster.power_cut(member, 0.5)
        cluster.run_until(lambda: cluster.leader() is not None)
    cluster.assert_whole()
    assert len(cluster.acknowledged) > 60


@pytest.mark.parametrize("seed", range(300, 303))
def test_membership_changes_under_faults_keep_the_state(seed: int) -> None:
    cluster = Cluster(seed, Network(delay_seconds=(0.001, 0.03), loss=0.01), "abcde", SMALL)
    dice = cluster.random
    end = cluster.now + 30.0
    while cluster.now < end:
        cluster.step()
        leader = cluster.leader()
        if leader is None:
            continue
        if dice.random() < 0.2:
            cluster.propose(leader)
        if dice.random() < 0.02:
            cluster.add_voter(leader, dice.choice(cluster.names))
        if dice.random() < 0.01 and len(leader.consensus.voters) > 2:
            cluster.remove_voter(leader, dice.choice(sorted(leader.consensus.voters)))
        if dice.random() < 0.004:
            cluster.power_cut(cluster.members[dice.choice(cluster.names)], dice.uniform(0.1, 2.0))
    cluster.heal()
    cluster.assert_whole()


def test_a_leader_without_majority_steps_down_within_two_seconds_and_refuses() -> None:
    cluster = grown(1)
    leader = cluster.leader()
    assert leader is not None
    me = leader.consensus.algorithm.selfNode.id
    for other in set(cluster.names) - {me}:
        cluster.partition(me, other, 10.0)
    began = cluster.now
    cluster.run_until(lambda: not leader.consensus.leads, 2.0)
    assert cluster.now - began <= 2.0
    refused = cluster.refused
    cluster.propose(leader)
    cluster.step()
    assert cluster.refused == refused + 1
    cluster.run_until(lambda: cluster.leader() is not None, 6.0)
    cluster.heal()
    cluster.assert_whole()


def test_a_partitioned_member_does_not_depose_the_leader_when_it_returns() -> None:
    cluster = grown(2)
    leader = cluster.leader()
    assert leader is not None
    me, term = leader.consensus.algorithm.selfNode.id, leader.consensus.algorithm.term()
    lonely = next(name for name in cluster.names if name != me)
    for other in set(cluster.names) - {lonely}:
        cluster.partition(lonely, other, 10.0)
    cluster.run(15.0)
    assert leader.consensus.leads
    assert leader.consensus.algorithm.term() == term


def test_who_is_far_behind_gets_a_snapshot() -> None:
    cluster = grown(3, settings=SMALL)
    leader = cluster.leader()
    assert leader is not None
    late = cluster.members[next(n for n in cluster.names if n != leader.consensus.algorithm.selfNode.id)]
    cluster.power_cut(late, 20.0)
    for _ in range(300):
        cluster.propose(leader)
        cluster.step()
    cluster.run(2.0)
    assert leader.journal.first_index > 100
    cluster.run(25.0)
    assert late.driver is not None
    assert len(late.driver.store.table(objects.Tenant)) == len(leader.store.table(objects.Tenant)) == 300
    cluster.assert_whole()


def test_the_same_seed_gives_the_same_run() -> None:
    def trace(seed: int) -> tuple[object, ...]:
        cluster = grown(seed, Network(loss=0.05), SMALL)
        bad_weather(cluster, 5.0)
        return (sorted(cluster.acknowledged), cluster.leaders, cluster.sequence)

    assert trace(7) == trace(7)


def test_a_learner_never_campaigns() -> None:
    cluster = Cluster(5)
    cluster.run(10.0)
    assert list(cluster.leaders.values()) == ["a"] * len(cluster.leaders)
    learner = cluster.members["b"].driver
    assert learner is not None
    assert learner.consensus.role() == "learner"
    assert learner.journal.membership == ()
    assert cluster.members["a"].driver is not None
    assert cluster.members["a"].driver.journal.membership == (Peer("a", "", 1),)
