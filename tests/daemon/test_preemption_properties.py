"""What holds of all that is stopped for others: it is lower, needed, allowed and enough; and it comes to rest."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.orchestration.budget_plan import Standing, standing_of
from daemon.orchestration.precedence import Precedences
from daemon.orchestration.preemption_plan import Preemption, Room, Spare
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from daemon.orchestration.task_states import serving
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec
from tests.daemon.test_scheduler_properties import SERVICES, assigned_to, images, node_lists, task_lists

CARD = "acme.example/card"
ROOM_KINDS = ("memory", "cpu", "address", "devices held")


@st.composite
def full_hosts(draw: st.DrawFn) -> list[objects.Node]:
    nodes = draw(node_lists())[:3]
    for node in nodes:
        node.description.cpu_millis, node.description.memory_bytes = 1_000 * draw(st.integers(1, 2)), GIB
        for number in range(draw(st.integers(0, 3))):
            node.description.devices.add(kind=CARD, name=f"{number}", units=[f"/dev/card{number}"])
    return nodes


@st.composite
def many_tasks(draw: st.DrawFn) -> list[objects.Task]:
    """The last of them is larger than most."""
    tasks = draw(task_lists(8))
    cards = {name: draw(st.sampled_from([0, 0, 1])) for name in SERVICES}
    for task in tasks:
        if cards[task.service]:
            task.spec.resources.devices.add(kind=CARD, count=1)
    large = tasks[-1].spec.resources
    if draw(st.booleans()):
        large.devices.add(kind=CARD, count=1)
    large.cpu_reserved_millis = draw(st.sampled_from([0, 500, 1000]))
    large.memory_reserved_bytes = draw(st.sampled_from([GIB // 4, GIB // 2, GIB]))
    return tasks


class Scene:
    """Hosts with tasks on them, of services with priorities, and one task more that fits nowhere."""

    def __init__(
        self, nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image, data: st.DataObject
    ) -> None:
        self.nodes, self.image = nodes, image
        scheduler = Scheduler(nodes, [])
        self.there: list[objects.Task] = []
        for task in tasks[:-1]:
            node = scheduler.place(Candidate(task, image)).node
            if node is not None:
                placed = assigned_to(task, node)
                placed.devices.extend(scheduler.hosts.devices.held_by(task.meta.id))
                placed.status.state = objects.TASK_STATE_RUNNING
                placed.status.ready = data.draw(st.booleans())
                if data.draw(st.integers(0, 5)) == 0:
                    placed.desired = objects.DESIRED_STATE_STOPPED
                self.there.append(placed)
        self.task = tasks[-1]
        lowest = {name: 1 if name == self.task.service else -1 for name in SERVICES}
        drawn = {name: data.draw(st.integers(least, least + 2)) for name, least in lowest.items()}
        self.services = {
            f"id-{name}": objects.Service(spec=objects.ServiceSpec(precedence=objects.Precedence(priority=priority)))
            for name, priority in drawn.items()
        }
        self.spares = {
            identifier: data.draw(st.sampled_from([Spare(1, False), Spare(0, False), Spare(1, True)]))
            for identifier in self.services
        }

    def priority(self, task: objects.Task) -> int:
        return self.services[task.service_id].spec.precedence.priority

    def make_room(self) -> Room | None:
        scheduler = Scheduler(self.nodes, self.there)
        precedences = Precedences(self.services.get, self.services.values())
        preemption = Preemption(scheduler, self.there, precedences, self.spares.__getitem__)
        candidate = Candidate(self.task, self.image)
        free = scheduler.hosts.cpu_free_millis.copy(), scheduler.hosts.memory_free_bytes.copy()
        room = preemption.make_room(candidate)
        scheduler.undo(0)
        preemption.undo(0)
        assert (scheduler.hosts.cpu_free_millis == free[0]).all() and (
            scheduler.hosts.memory_free_bytes == free[1]
        ).all()
        assert preemption.make_room(candidate) == room  # nothing of the first try is left
        return room

    def kinds(self, node: objects.Node, without: Collection[str]) -> list[str]:
        """What keeps the task from that host when those tasks are gone."""
        left = [task for task in self.there if task.meta.id not in without]
        found = Scheduler(self.nodes, left).examine(Candidate(self.task, self.image))
        return next([one.kind for one in refusals] for each, refusals in found if each.meta.id == node.meta.id)

    def on(self, node: objects.Node) -> list[objects.Task]:
        return [task for task in self.there if task.node_id == node.meta.id]

    def ending(self, node: objects.Node) -> set[str]:
        return {task.meta.id for task in self.on(node) if task.desired == objects.DESIRED_STATE_STOPPED}

    def up_to(self, node: objects.Node, priority: int) -> set[str]:
        return {task.meta.id for task in self.on(node) if self.priority(task) <= priority} | self.ending(node)

    def open(self, node: objects.Node) -> bool:
        """Only room is against it there."""
        return all(kind in ROOM_KINDS or kind.startswith("port") for kind in self.kinds(node, self.ending(node)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(full_hosts(), many_tasks(), images(), st.data())
def test_what_is_stopped_is_lower_needed_allowed_and_enough(
    nodes: list[objects.Node], tasks: list[objects.Task], image: objects.Image, data: st.DataObject
) -> None:
    scene = Scene(nodes, tasks, image, data)
    if Scheduler(nodes, scene.there).place(Candidate(scene.task, image)).node is not None:
        return
    room = scene.make_room()
    own = scene.priority(scene.task)
    bounded = {identifier for identifier, spare in scene.spares.items() if spare.bound}
    if room is None:
        near = {each.service for each in scene.task.spec.placement.affinities if each.required}
        for node in nodes if own > min(map(scene.priority, [*scene.there, scene.task])) else ():
            kept = [task for task in scene.on(node) if task.service_id in bounded or task.service in near]
            assert kept or not scene.open(node) or scene.kinds(node, scene.up_to(node, own - 1))
        return
    victims = {task.meta.id for task in room.victims}
    gone = victims | scene.ending(room.node)
    assert scene.kinds(room.node, gone) == []
    for victim in room.victims:
        assert scene.priority(victim) < own and victim.node_id == room.node.meta.id
        assert scene.kinds(room.node, gone - {victim.meta.id}) != []
    for identifier in bounded:
        lost = sum(serving(task) for task in room.victims if task.service_id == identifier)
        assert lost <= scene.spares[identifier].count
    highest = max(map(scene.priority, room.victims), default=None)
    for node in nodes:
        if highest is not None and scene.open(node):
            lower = [task for task in scene.on(node) if scene.priority(task) < highest]
            assert any(task.service_id in bounded for task in lower) or scene.kinds(
                node, scene.up_to(node, highest - 1)
            )


Deploy = tuple[int, int, int, int, bool]  # service, replicas, GiB of each task, priority, with a budget


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 5), st.integers(1, 3), st.sampled_from([-10, 0, 0, 10]), st.booleans()
        ),
        min_size=2,
        max_size=6,
    )
)
def test_a_cluster_comes_to_rest_without_a_task_that_waits_for_a_lower_one(deploys: list[Deploy]) -> None:
    model = ClusterModel(2)
    for service, replicas, gib, priority, with_budget in deploys:
        spec = service_spec(replicas, resources=objects.Resources(memory_reserved_bytes=gib * GIB))
        spec.precedence.priority = priority
        if with_budget:
            spec.disruption_budget.unavailable_max = 1
        model.deploy(app_spec(f"app{service}", web=spec))
        for _ in range(80):
            if not _step(model):
                break
        else:
            raise AssertionError("tasks are stopped and started for ever")
    free = {node.meta.id: 4 for node in model.store.table(objects.Node)}
    for task in model.alive():
        if task.node_id:
            free[task.node_id] -= _gib(task)
    assert min(free.values()) >= 0
    for task in model.alive():
        if task.node_id:
            continue
        for node_id in free:
            lower = [other for other in model.alive() if other.node_id == node_id and _lower(model, other, task)]
            kept = any(_service(model, other).spec.HasField("disruption_budget") for other in lower)
            assert kept or free[node_id] + sum(map(_gib, lower)) < _gib(task)


def _step(model: ClusterModel) -> bool:
    """One plan, which breaks no budget by itself, and what the hosts do then; whether anything moved."""
    before = {service.meta.id: _standing(model, service).available for service in _bounded(model)}
    updating = {service.meta.id for service in _bounded(model) if _updating(model, service)}
    planned = model.plan()
    for service in _bounded(model):
        standing = _standing(model, service)
        if service.meta.id not in updating and not _updating(model, service):
            assert standing.available >= min(before.get(service.meta.id, 0), standing.required)
    moved = model.host_step()
    model.now_unix_ms += 1_100
    return bool(len(planned.builder) or moved or planned.wake_at_unix_ms is not None)


def _bounded(model: ClusterModel) -> list[objects.Service]:
    return [service for service in model.store.table(objects.Service) if service.spec.HasField("disruption_budget")]


def _standing(model: ClusterModel, service: objects.Service) -> Standing:
    tasks = [task for task in model.tasks() if task.service_id == service.meta.id]
    return standing_of(service, tasks, {node.meta.id: node for node in model.store.table(objects.Node)})


def _updating(model: ClusterModel, service: objects.Service) -> bool:
    """Updates are not bound by budgets."""
    return any(task.generation != service.generation for task in model.tasks() if task.service_id == service.meta.id)


def _service(model: ClusterModel, task: objects.Task) -> objects.Service:
    service = model.store.get(objects.Service, task.service_id)
    assert service is not None
    return service


def _lower(model: ClusterModel, other: objects.Task, task: objects.Task) -> bool:
    one, two = (_service(model, each).spec.precedence.priority for each in (other, task))
    return one < two


def _gib(task: objects.Task) -> int:
    return task.spec.resources.memory_reserved_bytes // GIB
