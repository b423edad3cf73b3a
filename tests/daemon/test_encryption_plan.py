"""The way to encryption, to new keys and back: single steps by table, whole ways with hosts that lag, fail and join."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import cast

import pytest

from daemon.agent.encryption import report_of
from daemon.errors import Refused
from daemon.leader.encryption_changes_plan import plan_update_encryption
from daemon.leader.encryption_plan import (
    CLEAR,
    DROP_AFTER_MS,
    KEY_AGE_MS_DEFAULT,
    KEY_AGE_MS_MIN,
    Way,
    next_epoch,
    plan_encryption,
    state_at_start,
    step,
    way_of,
)
from daemon.leader.encryption_words_plan import encryption_reply
from daemon.leader.report_plan import plan_reports
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import HostReport
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel

WIREGUARD, NONE = objects.ENCRYPTION_WIREGUARD, objects.ENCRYPTION_NONE
PLAIN, TAKES_ONE, SENDS_ONE, ON = Way(), Way(0, (0, 1), 1), Way(1, (0, 1), 1), Way(1, (1,), 1)


@pytest.mark.parametrize(
    ("way", "goal", "conditions", "after"),
    [
        (PLAIN, CLEAR, "follows rested ready", None),
        (PLAIN, 1, "follows rested ready", TAKES_ONE),
        (PLAIN, 1, "rested ready", None),
        (TAKES_ONE, 1, "follows ready", SENDS_ONE),
        (TAKES_ONE, 1, "follows rested", None),  # a host has no key yet
        (TAKES_ONE, 1, "rested ready", None),  # a host does not know all keys yet
        (TAKES_ONE, CLEAR, "follows rested ready", Way(0, (0,), 1)),  # the operator changed their mind
        (SENDS_ONE, 1, "follows rested ready", ON),
        (SENDS_ONE, 1, "follows ready", None),  # packets may be under way
        (SENDS_ONE, 1, "rested ready", None),  # a host may still send in the clear
        (SENDS_ONE, CLEAR, "follows ready", Way(0, (0, 1), 1)),
        (ON, 2, "follows", Way(1, (1, 2), 2)),
        (Way(1, (1, 2), 2), 2, "follows ready", Way(2, (1, 2), 2)),
        (Way(1, (1, 2), 2), 1, "follows", Way(1, (1,), 2)),  # nobody ever sent by 2
        (Way(2, (1, 2), 2), 2, "follows rested", Way(2, (2,), 2)),
        (Way(1, (1, 2), 2), CLEAR, "follows rested ready", Way(1, (1,), 2)),  # two at most are received
        (ON, CLEAR, "follows", Way(1, (1, 0), 1)),
    ],
)
def test_each_step_waits_for_what_makes_it_safe(way: Way, goal: int, conditions: str, after: Way | None) -> None:
    held = {name: name in conditions.split() for name in ("follows", "rested", "ready")}
    assert step(way, goal, **held) == after


@pytest.mark.parametrize(
    ("way", "epoch"), [(PLAIN, 1), (Way(0, (0,), 4), 5), (ON, 2), (Way(1, (1,), 2), 4), (Way(2, (2,), 3), 5)]
)
def test_an_epoch_is_new_and_has_a_device_of_its_own(way: Way, epoch: int) -> None:
    assert next_epoch(way) == epoch


@dataclass
class ModelHost:
    """What a host's kernel does: the way it follows, its keys, and what it was told of the others' keys."""

    node_id: str
    revision: int = 0
    way: Way = PLAIN
    known: dict[str, set[int]] = field(default_factory=dict)
    up: bool = True
    able: bool = True

    def reaches(self, other: ModelHost) -> bool:
        epoch = self.way.sending
        if epoch not in other.way.receiving:
            return False
        return epoch == CLEAR or (
            epoch in self.known.get(other.node_id, ()) and epoch in other.known.get(self.node_id, ())
        )


class Cluster:
    """A real store and the real plan; hosts take in what the store says when the test lets them."""

    def __init__(self, host_count: int = 3) -> None:
        self.model = ClusterModel(host_count)
        self.model.now_unix_ms = 10_000_000
        self.hosts = {node.meta.id: ModelHost(node.meta.id) for node in self.model.store.table(objects.Node)}

    @property
    def stored(self) -> objects.Cluster:
        return next(iter(self.model.store.table(objects.Cluster)))

    @property
    def way(self) -> Way:
        return way_of(self.stored.encryption)

    def ask(self, **request: object) -> None:
        builder = plan_update_encryption(self.model.store, control.UpdateEncryptionRequest(**request))  # type: ignore[arg-type]
        self._apply(builder)

    def acknowledged(self) -> int:
        return min((host.revision for host in self.hosts.values() if host.up), default=0)

    def lead(self) -> bool:
        """One look of the leader; whether it made a step."""
        builder = plan_encryption(self.model.store, self.acknowledged(), self.model.now_unix_ms)
        return self._apply(builder)

    def follow(self, host: ModelHost) -> None:
        """A host takes in all that is stored, and reports its keys."""
        store = self.model.store
        host.revision, host.way = store.revision, self.way
        host.known = {node.meta.id: {key.epoch for key in node.network.keys} for node in store.table(objects.Node)}
        epochs = [epoch for epoch in self.way.receiving if epoch] if host.able else []
        problem = "" if host.able or self.way.receiving == (CLEAR,) else "no WireGuard"
        report = report_of({epoch: bytes([epoch]) * 32 for epoch in epochs}, problem)
        self._apply(plan_reports(store, [(host.node_id, HostReport(encryption=report))], self.model.now_unix_ms))

    def set_up(self, host: ModelHost, up: bool) -> None:
        host.up = up
        node = objects.Node()
        node.CopyFrom(cast(objects.Node, self.model.store.get(objects.Node, host.node_id)))
        node.state = objects.NODE_STATE_READY if up else objects.NODE_STATE_DOWN
        self._apply(TransactionBuilder().update(node))

    def settle(self) -> None:
        """Lets everything happen until nothing does."""
        for _ in range(60):
            self.model.now_unix_ms += DROP_AFTER_MS
            moved = self.lead()
            for host in self.hosts.values():
                if host.up and host.revision < self.model.store.revision:
                    self.follow(host)
                    moved = True
            if not moved:
                return
        raise AssertionError("it never settles")

    def words(self) -> str:
        reply = encryption_reply(self.model.store, self.acknowledged(), {}, self.model.now_unix_ms)
        return reply.summary

    def _apply(self, builder: TransactionBuilder) -> bool:
        if not len(builder):
            return False
        self.model.apply(builder)
        return True


def test_a_cluster_goes_to_encryption_to_new_keys_and_back() -> None:
    cluster = Cluster()
    cluster.settle()
    assert cluster.way == PLAIN
    cluster.ask(encryption=WIREGUARD)
    cluster.settle()
    assert cluster.way == ON
    cluster.ask(rotate=True)
    cluster.settle()
    assert cluster.way == Way(2, (2,), 2)
    assert not cluster.stored.encryption.rotation_asked
    cluster.model.now_unix_ms += KEY_AGE_MS_DEFAULT
    cluster.settle()
    assert cluster.way == Way(3, (3,), 3), "old keys are replaced without being asked to"
    cluster.ask(encryption=NONE)
    cluster.settle()
    assert cluster.way == Way(0, (0,), 3)
    assert all(not node.network.keys for node in cluster.model.store.table(objects.Node))


@pytest.mark.parametrize("seed", range(60))
def test_hosts_that_are_up_always_reach_each_other(seed: int) -> None:
    """Hosts follow at any time and in any order, operators change their minds, hosts go down, come back and join."""
    draw = random.Random(seed)
    cluster = Cluster(draw.randint(2, 5))
    cluster.settle()
    for _ in range(400):
        cluster.model.now_unix_ms += draw.choice((1, 100, DROP_AFTER_MS, KEY_AGE_MS_DEFAULT // 20))
        hosts = list(cluster.hosts.values())
        match draw.randrange(12):
            case 0:
                cluster.ask(encryption=draw.choice((WIREGUARD, NONE)))
            case 1 if cluster.stored.network.encryption == WIREGUARD:
                cluster.ask(rotate=True)
            case 2:
                host = draw.choice(hosts)
                if host.up and sum(other.up for other in hosts) > 2:
                    cluster.set_up(host, False)
                elif not host.up:
                    cluster.follow(host)  # its session brings it to the newest state before it counts as up
                    cluster.follow(host)
                    for other in hosts:
                        cluster.follow(other)
                    cluster.set_up(host, True)
            case 3 | 4 | 5:
                cluster.lead()
            case _:
                host = draw.choice(hosts)
                if host.up:
                    cluster.follow(host)
        up = [host for host in cluster.hosts.values() if host.up]
        for host in up:
            assert host.way.sending in host.way.receiving
            assert len(host.way.receiving) <= 2
            epochs = [epoch for epoch in host.way.receiving if epoch]
            assert len({epoch % 2 for epoch in epochs}) == len(epochs)
            for other in up:
                assert host is other or host.reaches(other), f"{host} {other}"
    cluster.ask(encryption=NONE)
    cluster.settle()
    assert cluster.way.receiving == (CLEAR,)


def test_a_host_that_cannot_encrypt_keeps_a_cluster_from_beginning_and_is_named() -> None:
    cluster = Cluster()
    cluster.hosts["node-host-2"].able = False
    cluster.ask(encryption=WIREGUARD)
    cluster.settle()
    assert cluster.way == TAKES_ONE
    assert "host-2 cannot: no WireGuard" in cluster.words()
    cluster.hosts["node-host-2"].able = True
    cluster.hosts["node-host-2"].revision = 0
    cluster.settle()
    assert cluster.way == ON


def test_a_host_that_cannot_encrypt_any_more_does_not_keep_the_others_from_new_keys() -> None:
    cluster = Cluster()
    cluster.ask(encryption=WIREGUARD)
    cluster.settle()
    cluster.hosts["node-host-2"].able = False
    cluster.ask(rotate=True)
    cluster.settle()
    assert cluster.way == Way(2, (2,), 2)
    assert "host-2 cannot encrypt and gets no tasks" in cluster.words()


def test_a_host_that_is_down_is_not_waited_for_and_one_that_is_slow_is() -> None:
    cluster = Cluster()
    slow = cluster.hosts["node-host-3"]
    slow.up = False  # follows no more, and the leader does not know yet
    cluster.ask(encryption=WIREGUARD)
    slow.up = True
    others = [host for host in cluster.hosts.values() if host is not slow]
    for _ in range(10):
        cluster.lead()
        for host in others:
            cluster.follow(host)
    assert cluster.way in (PLAIN, TAKES_ONE)
    cluster.set_up(slow, False)
    cluster.settle()
    assert cluster.way == ON


def test_what_is_refused() -> None:
    cluster = Cluster()
    with pytest.raises(Refused, match="does not encrypt"):
        cluster.ask(rotate=True)
    with pytest.raises(Refused, match="at most"):
        cluster.ask(key_age_ms_max=KEY_AGE_MS_MIN - 1)


def test_a_new_cluster_that_is_to_encrypt_never_sends_in_the_clear() -> None:
    state = state_at_start(objects.NetworkSettings(encryption=WIREGUARD), 5)
    assert way_of(state) == ON
    assert state_at_start(objects.NetworkSettings(), 5) == objects.EncryptionState()


def test_keys_that_are_none_are_not_stored() -> None:
    cluster = Cluster(1)
    report = report_of({1: b"short", 2: bytes(32), 3: bytes(32), 4: bytes(32)}, "x" * 10_000)
    reports = [("node-host-1", HostReport(encryption=report)), ("unknown", HostReport(encryption=report))]
    cluster.model.apply(plan_reports(cluster.model.store, reports, 1))
    node = cast(objects.Node, cluster.model.store.get(objects.Node, "node-host-1"))
    assert [key.epoch for key in node.network.keys] == [2]
    assert len(node.network.encryption_problem) == 500
