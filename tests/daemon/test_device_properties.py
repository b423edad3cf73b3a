"""Properties of how devices are allotted: nobody gets what another has, and every reason is true."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from proto import objects_pb2 as objects
from tests.daemon.test_devices import FUSE, GPU, Request, device


@st.composite
def hosts_with_devices(draw: st.DrawFn) -> list[objects.Node]:
    nodes = []
    for number in range(draw(st.integers(1, 3))):
        devices = []
        for name in range(draw(st.integers(0, 4))):
            tasks_max = draw(st.sampled_from([1, 1, 1, 0, 2]))
            model, unit = draw(st.sampled_from("AB")), draw(st.sampled_from([f"u{name}", f"u{name}", "u0"]))
            devices.append(device(GPU, str(name), unit, tasks_max=tasks_max, model=model))
        whole = draw(st.booleans())
        if devices and whole:
            devices.append(device(GPU, "all", *sorted({unit for each in devices for unit in each.units})))
        if draw(st.booleans()):
            devices.append(device(FUSE, "fuse", "u1" if draw(st.booleans()) else "fuse"))
        nodes.append(
            objects.Node(
                meta=objects.Meta(id=f"id-{number}", name=f"host-{number}"),
                availability=objects.AVAILABILITY_ACTIVE,
                state=objects.NODE_STATE_READY,
                network=objects.NodeNetwork(block="10.112.1.0/24"),
                description=objects.NodeDescription(architecture="amd64", devices=devices),
            )
        )
    return nodes


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from([GPU, GPU, GPU, FUSE]))
        if draw(st.integers(0, 4)) == 0:
            names = draw(st.lists(st.sampled_from(["0", "1", "2", "all", "fuse"]), min_size=1, max_size=2, unique=True))
            found.append(Request(kind=kind, names=names))
        else:
            properties = draw(st.sampled_from([[], [], ["model == A"], ["model != A"]]))
            found.append(Request(kind=kind, count=draw(st.integers(0, 2)), properties=properties))
    return found


def brute_force(row: list[objects.HostDevice], asked: list[Request], held: dict[str, list[bool]]) -> bool:
    """Whether there are devices for all requests, by trying every choice; without "all" of a kind."""

    def free(each: objects.HostDevice) -> bool:
        for unit in each.units:
            if held.get(unit) and not (each.shared and all(held[unit])):
                return False
            if each.tasks_max and len(held.get(unit, [])) >= each.tasks_max:
                return False
        return True

    choices = []
    for request in asked:
        if request.names:
            choices += [
                [each for each in row if each.kind == request.kind and each.name == name] for name in request.names
            ]
        else:
            equal = "==" in "".join(request.properties)
            suiting = [
                each
                for each in row
                if each.kind == request.kind
                and len(each.units) == 1
                and (not request.properties or (each.properties.get("model") == "A") == equal)
            ]
            first: dict[str, objects.HostDevice] = {}
            for each in suiting:
                first.setdefault(each.units[0], each)
            choices += [list(first.values())] * request.count
    for chosen in itertools.product(*choices):
        units = [unit for each in chosen for unit in each.units]
        if len(set(units)) == len(units) and all(map(free, chosen)):
            return True
    return False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts_with_devices(), st.lists(requests(), max_size=10), st.lists(st.integers(0, 9), max_size=6))
def test_nobody_gets_what_another_has_and_every_reason_is_true(
    nodes: list[objects.Node], asked: list[list[Request]], ends: list[int]
) -> None:
    image = objects.Image(manifest_digest="sha256:a", architecture="amd64")
    scheduler = Scheduler(nodes, [])
    held: list[dict[str, list[bool]]] = [{} for _ in nodes]
    given_to: dict[str, tuple[int, list[objects.AllottedDevice]]] = {}
    for number, wanted in enumerate(asked):
        spec = objects.ServiceSpec(resources=objects.Resources(devices=wanted))
        identifier = f"task-{number}"
        task = objects.Task(
            meta=objects.Meta(id=identifier, name=f"t.{number}"), service_id=identifier, slot=1, spec=spec
        )
        task.desired = objects.DESIRED_STATE_RUNNING
        examined = scheduler.examine(Candidate(task, image))
        if not any(not each.names and not each.count for each in wanted):
            for (node, refusals), here in zip(examined, held, strict=True):
                row = list(node.description.devices)
                assert bool(refusals) == (not brute_force(row, wanted, here))
                lacking = [each for each in refusals if each.kind != "devices held"]
                assert bool(lacking) == (not brute_force(row, wanted, {}))
        placement = scheduler.place(Candidate(task, image))
        fitting = [node.meta.id for node, refusals in examined if not refusals]
        assert (placement.node.meta.id in fitting) if placement.node is not None else not fitting
        if placement.node is not None:
            where = nodes.index(placement.node)
            given = list(scheduler.hosts.devices.held_by(identifier))
            given_to[identifier] = (where, given)
            for each in given:
                for unit in each.units:
                    held[where].setdefault(unit, []).append(each.shared)
            for holders in held[where].values():
                assert len(holders) == 1 or all(holders)
    tasks = [_as_assigned(identifier, nodes[where], given) for identifier, (where, given) in given_to.items()]
    anew = Scheduler(nodes, tasks)  # as the next plan counts them
    for wanted in asked:
        for where in range(len(nodes)):
            assert anew.hosts.devices.allot(where, wanted) == scheduler.hosts.devices.allot(where, wanted)
    for number in ends:
        scheduler.hosts.devices.release(f"task-{number}")
        tasks = [task for task in tasks if task.meta.id != f"task-{number}"]
    left = Scheduler(nodes, tasks)
    for wanted in asked:
        for where in range(len(nodes)):
            assert left.hosts.devices.allot(where, wanted) == scheduler.hosts.devices.allot(where, wanted)


def _as_assigned(identifier: str, node: objects.Node, given: list[objects.AllottedDevice]) -> objects.Task:
    return objects.Task(
        meta=objects.Meta(id=identifier),
        node_id=node.meta.id,
        address="10.112.1.9",
        devices=given,
        service_id=identifier,
    )
