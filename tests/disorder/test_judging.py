"""The judgement of a disorder finds what is not as it was asked for, and nothing where all is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.message import Message

from proto import objects_pb2 as objects
from raft.schema import KINDS
from tests.disorder import apps, judging
from tests.disorder.apps import Wanted
from tests.disorder.holders import Holder, conflicts, read_holder
from tests.disorder.sights import Sight
from tests.disorder.stored import Stored

Lease = objects.Lease
WANTED = Wanted(apps.REPLICATED, "v1", replicas=2, published=18080, serves=True)
VIP = "10.120.0.1"


class World:
    """Two hosts, an app with one service of two tasks, all as it should be; to be spoilt."""

    def __init__(self) -> None:
        self.wanted = {"d-1/web": WANTED}
        self.bays: dict[str, str] = {}
        self.service = objects.Service(app="d-1", generation=1, vip=VIP)
        self.service.meta.id, self.service.meta.name = "s", "web"
        self.service.spec.replicas = 2
        self.service.spec.container.environment["DISORDER"] = "d-1/web v1 any"
        self.nodes = [self._node(number) for number in (1, 2)]
        self.tasks = [self._task(number) for number in (1, 2)]
        self.others: list[Message] = [
            objects.App(meta=objects.Meta(id="a", name="d-1")),
            objects.Network(meta=objects.Meta(id="n", name="front"), app="d-1", ordinal=1),
        ]
        self.leases = {
            "vip/10.120.0.1": (Lease.KIND_VIP, "s"),
            "port/tcp/18080": (Lease.KIND_PUBLISHED_PORT, "s"),
            "ordinal/network/1": (Lease.KIND_NETWORK_ORDINAL, "n"),
        }
        for number in (1, 2):
            self.leases[f"address/10.112.{number}.2"] = (Lease.KIND_TASK_ADDRESS, f"t{number}")
            self.leases[f"block/10.112.{number}.0/24"] = (Lease.KIND_HOST_BLOCK, f"h{number}")
            self.leases[f"ordinal/node/{number}"] = (Lease.KIND_NODE_ORDINAL, f"h{number}")
        self.sights = {f"host-{number}": self._sight(number) for number in (1, 2)}

    @staticmethod
    def _node(number: int) -> objects.Node:
        node = objects.Node(meta=objects.Meta(id=f"h{number}", name=f"host-{number}"))
        node.network.block, node.network.ordinal = f"10.112.{number}.0/24", number
        return node

    def _task(self, number: int) -> objects.Task:
        task = objects.Task(meta=objects.Meta(id=f"t{number}", name=f"web.{number}"), service_id="s", slot=number)
        task.node_id, task.address = f"h{number}", f"10.112.{number}.2"
        task.desired = objects.DESIRED_STATE_RUNNING
        task.status.state, task.status.ready = objects.TASK_STATE_RUNNING, True
        task.spec.CopyFrom(self.service.spec)
        return task

    @staticmethod
    def _sight(number: int) -> Sight:
        both = {"10.112.1.2", "10.112.2.2"}
        names = {"web.d-1": {VIP}, "tasks.web.d-1": both, "gone.d-1": set[str]()}
        return Sight({"containers": {f"t{number}"}}, 1, backends={VIP: both}, names=names)

    def differences(self) -> list[str]:
        leases = [
            Lease(meta=objects.Meta(id=name, name=name), kind=kind, holder_id=holder)
            for name, (kind, holder) in self.leases.items()
        ]
        those = [self.service, *self.nodes, *self.tasks, *self.others, *leases]
        stored = Stored(1, {kind.message: [each for each in those if type(each) is kind.message] for kind in KINDS})
        return judging.differences(self.wanted, {}, self.bays, "d-", stored, self.sights)


def test_nothing_is_said_where_all_is_as_it_was_asked_for() -> None:
    assert World().differences() == []


def _fewer(world: World) -> None:
    task = world.tasks.pop()
    del world.leases[f"address/{task.address}"]
    world.sights["host-2"].tasks["containers"].clear()
    world.sights["host-2"].veths = 0
    for sight in world.sights.values():
        sight.backends[VIP] = sight.names["tasks.web.d-1"] = {"10.112.1.2"}


def _rolling(world: World) -> None:
    world.service.rollout.generation = 1
    world.service.rollout.state = objects.Rollout.STATE_PAUSED


def _without_host(world: World) -> None:
    _fewer(world)
    task = objects.Task(meta=objects.Meta(id="t3", name="web.2"), service_id="s", slot=2)
    task.desired = objects.DESIRED_STATE_RUNNING
    world.tasks.append(task)


def _crowded(world: World) -> None:
    world.wanted["d-1/web"] = replace(WANTED, per_node_max=1)
    world.tasks[1].node_id = "h1"


SPOILT: dict[str, tuple[str, Callable[[World], object]]] = {
    "a task too few": ("has tasks for slots", _fewer),
    "a task without a host": ("though one would do", _without_host),
    "another version": ("is at version", lambda world: world.wanted.update({"d-1/web": replace(WANTED, version="v2")})),
    "another number": ("replicas", lambda world: world.wanted.update({"d-1/web": replace(WANTED, replicas=3)})),
    "a service nobody wants": ("nobody asked", lambda world: world.wanted.clear()),
    "a service that is not there": ("is not there", lambda world: world.wanted.update({"d-1/two": WANTED})),
    "a rollout that stands": ("rollout is paused", _rolling),
    "a task that is not ready": ("not ready", lambda world: setattr(world.tasks[0].status, "ready", False)),
    "an older task": ("is of version", lambda world: world.tasks[0].spec.container.environment.clear()),
    "too many on a host": ("at most", _crowded),
    "an address leaked": (
        "does not have it",
        lambda world: world.leases.update({"address/10.112.1.9": (Lease.KIND_TASK_ADDRESS, "t9")}),
    ),
    "a port leaked": (
        "which is not there",
        lambda world: world.leases.update({"port/tcp/9": (Lease.KIND_PUBLISHED_PORT, "s9")}),
    ),
    "an address without a lease": ("without a lease", lambda world: world.leases.pop("address/10.112.1.2")),
    "an orphan": ("without a task", lambda world: world.sights["host-1"].tasks["containers"].add("t9")),
    "a task without a container": ("has none", lambda world: world.sights["host-1"].tasks["containers"].clear()),
    "a task of no service": (
        "of no service",
        lambda world: world.others.append(objects.Task(meta=objects.Meta(id="t9"), app="d-1", service_id="s9")),
    ),
    "a secret of no app": (
        "secret or config",
        lambda world: world.others.append(objects.TaskFile(meta=objects.Meta(id="f"), app="d-9")),
    ),
    "data of a volume that was removed": (
        "removed with its volumes",
        lambda world: world.others.append(objects.Volume(meta=objects.Meta(id="v"), app="d-1", removing=True)),
    ),
    "a veth": ("veth pairs", lambda world: setattr(world.sights["host-1"], "veths", 2)),
    "data of a volume": ("data of volume", lambda world: world.sights["host-1"].volumes.add("v")),
    "a balancer": ("the balancer sends", lambda world: world.sights["host-2"].backends[VIP].pop()),
    "a balancer of nobody": (
        "no service has",
        lambda world: world.sights["host-2"].backends.update({"10.120.0.9": set()}),
    ),
    "a name": ("name gone.d-1", lambda world: world.sights["host-2"].names["gone.d-1"].add("10.112.1.2")),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_not_as_it_was_asked_for_is_said(what: str) -> None:
    world = World()
    words, spoil = SPOILT[what]
    spoil(world)
    assert any(words in each for each in world.differences()), world.differences()


def test_a_task_that_no_host_is_for_may_wait() -> None:
    world = World()
    _without_host(world)
    world.wanted["d-1/web"] = replace(WANTED, bay="b")
    assert world.differences() == []
    world.bays["host-2"] = "b"
    assert len(world.differences()) == 1


def test_two_holders_of_a_volume_are_found_where_one_may_not_share_and_on_two_hosts() -> None:
    alone = [Holder(f"t{number}", "d-1/db", "v1", True, ("v",)) for number in (1, 2)]
    shared = [replace(one, alone=False) for one in alone]
    assert not conflicts([("host-1", alone[0])])
    assert not conflicts([("host-1", shared[0]), ("host-1", shared[1])])
    assert len(conflicts([("host-1", alone[0]), ("host-1", alone[1])])) == 1
    assert len(conflicts([("host-1", shared[0]), ("host-2", shared[1])])) == 1


def test_a_holder_is_read_from_its_container() -> None:
    config = {
        "process": {"env": ["PATH=/bin", "DISORDER=d-1/db v3 alone"]},
        "mounts": [{"destination": "/proc"}, {"source": "/var/lib/fairway/volumes/abc/data", "destination": "/data"}],
    }
    assert read_holder("t", json.dumps(config)) == Holder("t", "d-1/db", "v3", True, ("abc",))
