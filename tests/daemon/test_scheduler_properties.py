"""What holds of every plan: no host is overfull, no bound is broken, and every reason that is given is true."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.host_conditions import BARRING, CPU, barring
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from daemon.orchestration.scheduler_words import Refusal
from net.features import HOST_NETWORK
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB

SERVICES = ("web", "db", "cache")
LABELS = ("node.labels.zone", "node.labels.rack")


@st.composite
def node_lists(draw: st.DrawFn) -> list[objects.Node]:
    return [_node(draw, number) for number in range(draw(st.integers(1, 6)))]


def _node(draw: st.DrawFn, number: int) -> objects.Node:
    labels = {name: draw(st.sampled_from("ab")) for name in ("zone", "rack", "disk") if draw(st.booleans())}
    mostly = st.sampled_from([0, 0, 0, 0, 1])
    return objects.Node(
        meta=objects.Meta(id=f"id-{number}", name=f"host-{number}", labels=labels),
        availability=[objects.AVAILABILITY_ACTIVE, objects.AVAILABILITY_CORDONED][draw(mostly)],
        state=[objects.NODE_STATE_READY, objects.NODE_STATE_DOWN][draw(mostly)],
        network=objects.NodeNetwork(block="10.112.1.0/" + draw(st.sampled_from(["24", "29"]))),
        conditions=[objects.NodeCondition(kind=draw(st.sampled_from([CPU, *BARRING]))) for _ in range(draw(mostly))],
        description=objects.NodeDescription(
            architecture=["amd64", "arm64"][draw(mostly)],
            cpu_millis=draw(st.integers(1, 4)) * 1000,
            memory_bytes=draw(st.integers(1, 4)) * GIB,
            lacks=["SCTP"] * draw(mostly) + [HOST_NETWORK] * draw(mostly),
        ),
    )


@st.composite
def specs(draw: st.DrawFn) -> objects.ServiceSpec:
    spec = objects.ServiceSpec(
        resources=objects.Resources(
            cpu_reserved_millis=draw(st.sampled_from([0, 250, 1000])),
            memory_reserved_bytes=draw(st.sampled_from([0, GIB // 4, GIB])),
        )
    )
    if draw(st.integers(0, 3)) == 0:
        spec.constraints.append(draw(st.sampled_from(["node.labels.disk == a", "node.labels.disk != a"])))
    if draw(st.integers(0, 3)) == 0:
        port = draw(st.sampled_from(["tcp", "sctp"]))
        spec.ports.add(protocol=port, target=80, published=8080, mode=objects.PortSpec.MODE_HOST)
    spec.container.host_network = draw(st.integers(0, 3)) == 0
    if draw(st.booleans()):
        spec.placement.pack = draw(st.booleans())
        spec.placement.per_node_max = draw(st.sampled_from([0, 0, 1, 2]))
        spec.placement.spread_over.extend(draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True)))
        for _ in range(draw(st.integers(0, 2))):
            affinity = spec.placement.affinities.add(
                anti=draw(st.booleans()), required=draw(st.booleans()), weight=draw(st.integers(0, 5))
            )
            affinity.service = draw(st.sampled_from(SERVICES))
            affinity.same = draw(st.sampled_from(["", "", "node.labels.zone"]))
        if draw(st.integers(0, 3)) == 0:
            spec.placement.affinities.add(constraint="node.labels.disk == b", anti=draw(st.booleans()))
    return spec


@st.composite
def task_lists(draw: st.DrawFn, count_min: int = 0) -> list[objects.Task]:
    """Some of a slot twice, as while one replaces the other."""
    by_service = {name: draw(specs()) for name in SERVICES}
    chosen = draw(st.lists(st.tuples(st.sampled_from(SERVICES), st.integers(1, 8)), min_size=count_min, max_size=30))
    return [_task(number, service, slot, by_service[service]) for number, (service, slot) in enumerate(chosen)]


def _task(number: int, service: str, slot: int, spec: objects.ServiceSpec) -> objects.Task:
    return objects.Task(
        meta=objects.Meta(id=f"task-{number}", name=f"{service}.{slot}"),
        app="shop",
        service_id=f"id-{service}",
        service=service,
        slot=slot,
        desired=objects.DESIRED_STATE_RUNNING,
        spec=spec,
    )


@st.composite
def images(draw: st.DrawFn) -> objects.Image:
    holders = draw(st.lists(st.integers(0, 5), max_size=3, unique=True))
    return objects.Image(
        manifest_digest="sha256:a", architecture="amd64", node_ids=[f"id-{number}" for number in holders]
    )


def assigned_to(task: objects.Task, node: objects.Node) -> objects.Task:
    placed = objects.Task()
    placed.CopyFrom(task)
    placed.node_id, placed.address = node.meta.id, "10.112.1.9"
    return placed


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(node_lists(), task_lists(), images())
def test_no_plan_exceeds_what_a_host_has_or_a_service_allows(
    nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image
) -> None:
    scheduler = Scheduler(nodes, [])
    placed = []
    for task in tasks:
        placement = scheduler.place(Candidate(task, image))
        assert (placement.node is None) == bool(placement.reason)
        if placement.node is not None:
            placed.append((task, placement.node))
    for node in nodes:
        here = [task for task, other in placed if other.meta.id == node.meta.id]
        assert sum(task.spec.resources.cpu_reserved_millis for task in here) <= node.description.cpu_millis
        assert sum(task.spec.resources.memory_reserved_bytes for task in here) <= node.description.memory_bytes
        assert len(here) <= (253 if node.network.block.endswith("/24") else 5)
        ports = Counter((port.protocol, port.published) for task in here for port in task.spec.ports)
        assert all(count == 1 for count in ports.values())
        for task in here:
            bound = task.spec.placement.per_node_max
            assert not bound or len({one.slot for one in here if one.service == task.service}) <= bound
            assert node.state == objects.NODE_STATE_READY and node.availability == objects.AVAILABILITY_ACTIVE
            assert node.description.architecture == "amd64"
            assert not barring(node)
            for constraint in task.spec.constraints:
                assert (node.meta.labels.get("disk") == "a") == ("==" in constraint)
    for task, node in placed:
        for affinity in task.spec.placement.affinities:
            if affinity.required and affinity.anti:
                assert not any(
                    other.service == affinity.service
                    and (other.service, other.slot) != (task.service, task.slot)
                    and _near(node, there, affinity.same)
                    for other, there in placed
                )


def _near(one: objects.Node, other: objects.Node, same: str) -> bool:
    if not same:
        return one.meta.id == other.meta.id
    return one.meta.labels.get("zone") == other.meta.labels.get("zone")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(node_lists(), task_lists(), images())
def test_a_long_plan_decides_as_one_that_begins_anew_for_each_task(
    nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image
) -> None:
    """What the scheduler keeps up from placement to placement is what it would work out again."""
    scheduler = Scheduler(nodes, [])
    placed: list[objects.Task] = []
    for task in tasks:
        once = scheduler.place(Candidate(task, image))
        anew = Scheduler(nodes, placed).place(Candidate(task, image))
        assert (once.node, once.reason) == (anew.node, anew.reason)
        if once.node is not None:
            placed.append(assigned_to(task, once.node))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(node_lists(), task_lists(), images(), st.data())
def test_what_was_taken_back_leaves_nothing_behind(
    nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image, data: st.DataObject
) -> None:
    tried, straight = Scheduler(nodes, []), Scheduler(nodes, [])
    for task in tasks:
        before = tried.placed_count
        for other in data.draw(st.lists(st.sampled_from(tasks), max_size=3)):
            if tried.place(Candidate(other, image)).node is None and data.draw(st.booleans()):
                tried.promise(0, other)
        tried.undo(before)
        one, two = tried.place(Candidate(task, image)), straight.place(Candidate(task, image))
        assert (one.node, one.reason) == (two.node, two.reason)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(node_lists(), task_lists(), images())
def test_without_its_reasons_a_host_takes_the_task(
    nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image
) -> None:
    """Every refusal is true and none is missing: what it is about is removed, by kind, and the task fits."""
    scheduler = Scheduler(nodes, [])
    placed: list[objects.Task] = []
    for task in tasks:
        found = scheduler.examine(Candidate(task, image))
        placement = scheduler.place(Candidate(task, image))
        free = [node.meta.id for node, refusals in found if not refusals]
        assert (placement.node.meta.id in free) if placement.node is not None else not free
        for node, refusals in found:
            for left_out in [None, *refusals] if refusals else []:
                world = World(nodes, placed, task, node)
                for refusal in refusals:
                    if refusal is not left_out:
                        world.remove(refusal)
                left = [refusal.kind for refusal in world.refusals(image)]
                assert left == ([] if left_out is None else [left_out.kind])
        if placement.node is not None:
            placed.append(assigned_to(task, placement.node))


class World:
    """Hosts and tasks in which one reason after the other can be removed for one task on one host."""

    def __init__(
        self, nodes: list[objects.Node], placed: list[objects.Task], task: objects.Task, node: objects.Node
    ) -> None:
        self.nodes = [_copy_node(each) for each in nodes]
        self.placed = list(placed)
        self.task = objects.Task()
        self.task.CopyFrom(task)
        self.node = next(each for each in self.nodes if each.meta.id == node.meta.id)
        self.task.generation = 1

    def refusals(self, image: objects.Image) -> list[Refusal]:
        found = Scheduler(self.nodes, self.placed).examine(Candidate(self.task, image))
        return next(refusals for node, refusals in found if node.meta.id == self.node.meta.id)

    def remove(self, refusal: Refusal) -> None:
        kind, node, spec = refusal.kind, self.node, self.task.spec
        if kind in ("memory", "cpu"):
            amount = refusal.amount or 0
            asked = spec.resources.memory_reserved_bytes if kind == "memory" else spec.resources.cpu_reserved_millis
            assert amount < asked
            if kind == "memory":
                node.description.memory_bytes += asked - amount
            else:
                node.description.cpu_millis += asked - amount
        elif kind == "address":
            node.network.block = "10.112.1.0/24"
        elif kind == "down":
            node.state = objects.NODE_STATE_READY
        elif kind == "cordoned":
            node.availability = objects.AVAILABILITY_ACTIVE
        elif kind in BARRING:
            del node.conditions[:]
        elif kind.startswith("architecture"):
            node.description.architecture = "amd64"
        elif kind == "sctp":
            node.description.lacks.remove("SCTP")
        elif kind == "host network":
            node.description.lacks.remove(HOST_NETWORK)
        elif kind.startswith("port"):
            spec.ports[0].published = 9090
        elif kind.startswith("does not match"):
            if "==" in kind:
                node.meta.labels["disk"] = "a"
            else:
                del node.meta.labels["disk"]
        elif kind == "bound":
            spec.placement.per_node_max = 99
        elif kind.startswith("guard "):
            self.placed = [_without(each, kind.split()[1], True, "same zone" in kind) for each in self.placed]
        else:
            assert kind.startswith(("near ", "far "))
            self.task = _without(self.task, "", kind.startswith("near"), "same zone" in kind, kind.split()[1])


def _without(task: objects.Task, service: str, anti: bool, by_zone: bool, target: str = "") -> objects.Task:
    """Without the affinities that are required, of a task of that service (empty: any), to that target."""
    changed = objects.Task()
    changed.CopyFrom(task)
    if service in ("", task.service):
        kept = [
            each
            for each in task.spec.placement.affinities
            if not (each.required and each.anti == anti and bool(each.same) == by_zone)
            or target not in ("", each.service)
        ]
        del changed.spec.placement.affinities[:]
        changed.spec.placement.affinities.extend(kept)
    return changed


def _copy_node(node: objects.Node) -> objects.Node:
    copy = objects.Node()
    copy.CopyFrom(node)
    return copy
