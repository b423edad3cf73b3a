"""Where tasks go, and what is said when they go nowhere."""

from __future__ import annotations

import time

import pytest

from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB

IMAGE = objects.Image(manifest_digest="sha256:a", architecture="amd64")


def node(name: str, **fields: object) -> objects.Node:
    made = objects.Node(
        meta=objects.Meta(id=f"id-{name}", name=name),
        availability=objects.AVAILABILITY_ACTIVE,
        state=objects.NODE_STATE_READY,
        network=objects.NodeNetwork(block="10.112.1.0/24"),
        description=objects.NodeDescription(architecture="amd64", cpu_millis=4000, memory_bytes=4 * GIB),
    )
    made.MergeFrom(objects.Node(**fields))  # type: ignore[arg-type]
    return made


def task(number: int = 0, service: str = "s", memory: int = 0, cpu: int = 0, **spec: object) -> objects.Task:
    resources = objects.Resources(memory_reserved_bytes=memory, cpu_reserved_millis=cpu)
    return objects.Task(
        meta=objects.Meta(id=f"task-{service}-{number}"),
        service_id=service,
        desired=objects.DESIRED_STATE_RUNNING,
        spec=objects.ServiceSpec(resources=resources, **spec),  # type: ignore[arg-type]
    )


def place(nodes: list[objects.Node], *tasks: objects.Task) -> list[str]:
    scheduler = Scheduler(nodes, [])
    placed = [scheduler.place(Candidate(one, IMAGE)) for one in tasks]
    return [one.node.meta.name if one.node is not None else one.reason for one in placed]


def test_a_service_is_spread_over_hosts_then_zones() -> None:
    def zone(name: str, where: str) -> objects.Node:
        return node(name, meta=objects.Meta(labels={"zone": where}))

    nodes = [zone("a1", "a"), zone("a2", "a"), zone("b1", "b")]
    assert place(nodes, *(task(n) for n in range(4))) == ["a1", "b1", "a2", "b1"]


def test_another_service_goes_where_least_is_reserved() -> None:
    nodes = [node("a"), node("b"), node("c")]
    tasks = [task(0, "x", memory=GIB), task(0, "y", memory=2 * GIB), task(0, "z"), task(0, "w", memory=GIB)]
    assert place(nodes, *tasks) == ["a", "b", "c", "c"]


def test_reservations_are_summed_exactly() -> None:
    nodes = [node("a")]
    placed = place(nodes, *(task(n, memory=GIB) for n in range(5)))
    assert placed[:4] == ["a"] * 4
    assert placed[4] == "no host fits: a has less than 1 GiB of memory left to reserve (it has 0 bytes)"
    placed = place(nodes, *(task(n, cpu=1500) for n in range(3)))
    assert placed[2] == "no host fits: a has less than 1.5 CPU left to reserve (it has 1 CPU)"


def test_ended_tasks_reserve_nothing_and_stopping_ones_still_do() -> None:
    ended, stopping = task(0, memory=4 * GIB), task(1, memory=3 * GIB)
    for one in (ended, stopping):
        one.node_id, one.address = "id-a", "10.112.1.2"
    ended.status.state = objects.TASK_STATE_EXITED
    stopping.desired = objects.DESIRED_STATE_STOPPED
    scheduler = Scheduler([node("a")], [ended, stopping])
    assert scheduler.place(Candidate(task(2, memory=GIB), IMAGE)).node is not None
    assert scheduler.place(Candidate(task(3, memory=GIB), IMAGE)).node is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": objects.NODE_STATE_DOWN}, "a is down"),
        ({"availability": objects.AVAILABILITY_CORDONED}, "a is cordoned"),
        ({"availability": objects.AVAILABILITY_DRAINING}, "a is draining"),
        ({"description": objects.NodeDescription(missing_features=["nftables"])}, "a lacks nftables"),
        (
            {"description": objects.NodeDescription(architecture="arm64")},
            "a has the architecture arm64 (the image is for amd64)",
        ),
    ],
)
def test_each_refusal_is_explained(fields: dict[str, object], words: str) -> None:
    assert place([node("a", **fields)], task()) == [f"no host fits: {words}"]


def test_a_task_goes_where_its_runtime_is() -> None:
    wanted = task()
    wanted.spec.container.isolation.runtime = "crun"
    has = objects.NodeDescription(runtimes=["runc", "crun"])
    assert place([node("a"), node("b", description=has)], wanted) == ["b"]
    lacks = objects.NodeDescription(runtimes=["runc"])
    reasons = place([node("a"), node("b", description=lacks)], wanted)
    assert reasons == ["no host fits: a and b have no runtime crun"]


def test_a_task_goes_where_its_isolation_is_possible() -> None:
    shifted, confined = task(0), task(1, service="t")
    shifted.spec.container.isolation.user_namespace = True
    confined.spec.container.apparmor_profile = "mine"
    lacks = objects.NodeDescription(lacks=["user namespaces", "AppArmor"])
    assert place([node("a", description=lacks), node("b")], shifted, confined) == ["b", "b"]
    assert place([node("a", description=lacks)], shifted, confined) == [
        "no host fits: a has no user namespaces for tasks",
        "no host fits: a has a kernel without AppArmor",
    ]


def test_reasons_are_put_together_by_kind() -> None:
    nodes = [node(f"h{n}") for n in range(5)] + [node("x", availability=objects.AVAILABILITY_CORDONED)]
    (reason,) = place(nodes, task(memory=8 * GIB))
    assert reason == (
        "no host fits: 5 hosts have less than 8 GiB of memory left to reserve (the most is 4 GiB); x is cordoned"
    )
    assert place([], task()) == ["no host fits: the cluster has none"]


def test_a_constraint_refuses_before_anything_else() -> None:
    nodes = [node("a", state=objects.NODE_STATE_DOWN), node("b")]
    (reason,) = place(nodes, task(constraints=["node.labels.disk == ssd"]))
    assert reason == "no host fits: a and b do not match node.labels.disk == ssd"


def test_volumes_tie_a_task_to_their_host() -> None:
    volume = objects.Volume(meta=objects.Meta(name="data"), node_id="id-b")
    other = objects.Volume(meta=objects.Meta(name="logs"), node_id="id-a")
    lost = objects.Volume(meta=objects.Meta(name="old"), node_id="id-gone")

    def where(nodes: list[objects.Node], *volumes: objects.Volume) -> str:
        placement = Scheduler(nodes, []).place(Candidate(task(), IMAGE, volumes))
        return placement.node.meta.name if placement.node is not None else placement.reason

    nodes = [node("a"), node("b")]
    assert where(nodes, volume) == "b"
    assert where(nodes, volume, other) == "its volumes are on different hosts: logs on a; data on b"
    assert "not in the cluster any more" in where(nodes, lost)
    nodes[1].state = objects.NODE_STATE_DOWN
    assert where(nodes, volume) == "bound to b by volume data; b is down"


def test_a_full_block_of_addresses_refuses() -> None:
    small = node("a", network=objects.NodeNetwork(block="10.112.1.0/30"))
    assert place([small], task(0), task(1))[1] == "no host fits: a has no address left for another task"


def test_fifty_tasks_over_a_thousand_hosts_take_no_more_than_seconds() -> None:
    nodes = [node(f"h{number:04d}") for number in range(1000)]
    started = time.thread_time()
    placed = place(nodes, *(task(n) for n in range(50)))
    assert time.thread_time() - started < 3
    assert len(set(placed)) == 50
