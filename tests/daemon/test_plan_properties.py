"""Everything at once: whatever is asked for and whatever happens to hosts, no plan gives away what is not there, and
what waits is placed when what keeps it is removed."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.quota_changes_plan import plan_set_quota
from daemon.errors import Refused
from daemon.host_conditions import BARRING
from daemon.orchestration.task_states import ended, gone
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec

CARD = "acme.example/card"
HOSTS = ("host-1", "host-2", "host-3")
CARDS, SHARES = 2, 2  # of a host: cards of one task each, and tasks that may have the shared one

Drawn = dict[str, int]
SERVICES = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 4),
        "memory": st.sampled_from([0, 1, 2]),
        "cpu": st.sampled_from([0, 500, 1500]),
        "cards": st.sampled_from([0, 0, 0, 1, 2]),
        "shared": st.sampled_from([0, 0, 1]),
        "port": st.sampled_from([0, 0, 0, 1]),
        "priority": st.sampled_from([0, 0, 10]),
        "group": st.sampled_from([0, 0, 0, 1]),
        "budget": st.sampled_from([0, 0, 1]),
    }
)
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "deploy",
                "deploy",
                "deploy",
                "quota",
                "down",
                "up",
                "drain",
                "activate",
                "trouble",
                "well",
                "fail",
                "step",
            ]
        ),
        st.sampled_from(["one", "two", "three"]),
        st.integers(0, 5),
        SERVICES,
    ),
    min_size=3,
    max_size=20,
)


def spec_of(drawn: Drawn) -> objects.ServiceSpec:
    resources = objects.Resources(memory_reserved_bytes=drawn["memory"] * GIB, cpu_reserved_millis=drawn["cpu"])
    if drawn["cards"]:
        resources.devices.add(kind=CARD, count=drawn["cards"])
    if drawn["shared"]:
        resources.devices.add(kind="acme.example/shared", count=1)
    spec = service_spec(drawn["replicas"], resources=resources)
    if drawn["port"]:
        spec.ports.add(protocol="tcp", target=80, published=8080, mode=objects.PortSpec.MODE_HOST)
    spec.precedence.priority = drawn["priority"]
    if drawn["group"]:
        spec.precedence.group = "ring"
    if drawn["budget"]:
        spec.disruption_budget.unavailable_max = 1
    return spec


def made() -> ClusterModel:
    model = ClusterModel(3)
    for host in HOSTS:
        description = objects.NodeDescription()
        for number in range(CARDS):
            description.devices.add(kind=CARD, name=str(number), units=[f"/dev/card{number}"])
        description.devices.add(
            kind="acme.example/shared", name="all", units=["/dev/shared"], shared=True, tasks_max=SHARES
        )
        model.change_node(host, description=description)
    return model


def change(model: ClusterModel, operation: str, app: str, number: int, drawn: Drawn) -> int | None:
    """Carries it out; the quota of tasks that it sets."""
    host = HOSTS[number % 3]
    match operation:
        case "deploy":
            try:
                model.deploy(app_spec(app, web=spec_of(drawn), more=spec_of({**drawn, "replicas": number % 3})))
            except Refused:
                return None  # never to be carried out, whatever hosts there are
        case "quota":
            request = control.SetQuotaRequest(tenant="default", quota=objects.Quota(tasks=2 + number))
            model.apply(plan_set_quota(model.store, request, model.new_id)[1])
            return 2 + number
        case "down" | "up":
            model.change_node(host, state=objects.NODE_STATE_DOWN if operation == "down" else objects.NODE_STATE_READY)
            if operation == "down":
                lose_tasks(model, host)
        case "drain":
            model.change_node(host, availability=objects.AVAILABILITY_DRAINING)
        case "activate":
            model.change_node(host, availability=objects.AVAILABILITY_ACTIVE)
        case "trouble":
            kind = sorted(BARRING)[number % len(BARRING)]
            well(model, host)
            model.change_node(host, conditions=[objects.NodeCondition(kind=kind, since_unix_ms=model.now_unix_ms)])
        case "well":
            well(model, host)
        case "fail":
            model.fails = lambda task: task.slot == number
    return None


def node_named(model: ClusterModel, host: str) -> objects.Node:
    node = objects.Node()
    node.CopyFrom(next(each for each in model.store.table(objects.Node) if each.meta.name == host))
    return node


def well(model: ClusterModel, host: str) -> None:
    node = node_named(model, host)
    del node.conditions[:]
    model.apply(TransactionBuilder().update(node))


def lose_tasks(model: ClusterModel, host: str) -> None:
    node_id = node_named(model, host).meta.id
    for task in list(model.tasks()):
        if task.node_id == node_id and not ended(task):
            lost = objects.Task()
            lost.CopyFrom(task)
            lost.status.state, lost.status.ready = objects.TASK_STATE_LOST, False
            model.apply(TransactionBuilder().update(lost))


def hosts_bear_it(model: ClusterModel) -> None:
    """Nothing is given away twice, and nothing that is not there."""
    for node in model.store.table(objects.Node):
        on_it = [task for task in model.tasks() if task.node_id == node.meta.id]
        there = [task for task in on_it if not ended(task)]
        assert sum(task.spec.resources.memory_reserved_bytes for task in there) <= node.description.memory_bytes
        assert sum(task.spec.resources.cpu_reserved_millis for task in there) <= node.description.cpu_millis
        ports = Counter(port.published for task in there for port in task.spec.ports)
        assert all(count == 1 for count in ports.values())
        held = Counter((each.kind, each.name) for task in on_it if not gone(task) for each in task.devices)
        for (kind, _), count in held.items():
            assert count <= (1 if kind == CARD else SHARES)
        for task in there:
            given = Counter(each.kind for each in task.devices)
            assert all(given[each.kind] == each.count for each in task.spec.resources.devices)
    addresses = Counter(task.address for task in model.tasks() if task.node_id and not gone(task))
    assert all(count == 1 for count in addresses.values())


def slots_in_use(model: ClusterModel) -> int:
    return len({(task.service_id, task.slot) for task in model.tasks() if task.node_id and not ended(task)})


def newly_placed(model: ClusterModel, before: set[str]) -> list[objects.Task]:
    return [task for task in model.tasks() if task.node_id and task.meta.id not in before]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_no_plan_gives_away_what_is_not_there(operations: list[tuple[str, str, int, Drawn]]) -> None:
    model, quota = made(), 1_000
    for operation, app, number, drawn in operations:
        quota = change(model, operation, app, number, drawn) or quota
        used, placed = slots_in_use(model), {task.meta.id for task in model.tasks() if task.node_id}
        pending = [task.meta.id for task in model.alive() if not task.node_id]
        model.plan()
        hosts_bear_it(model)
        assert slots_in_use(model) <= max(used, quota)
        groups: dict[tuple[str, str], set[bool]] = defaultdict(set)
        for task in newly_placed(model, placed):
            node = model.node_of(task)
            assert node.state == objects.NODE_STATE_READY and node.availability == objects.AVAILABILITY_ACTIVE
            assert not node.conditions
        for task in model.alive():
            service = model.store.get(objects.Service, task.service_id)
            group = service.spec.precedence.group if service is not None else ""
            if group and task.meta.id in pending and task.not_before_unix_ms <= model.now_unix_ms:
                groups[task.app, group].add(bool(task.node_id))
        assert all(len(placed_or_not) == 1 for placed_or_not in groups.values())
        if operation == "step":
            model.host_step()
            model.fails = lambda task: False
            model.now_unix_ms += 900


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_what_waits_is_placed_when_its_reasons_are_removed(operations: list[tuple[str, str, int, Drawn]]) -> None:
    """All reasons at once: hosts that are well and have plenty of everything but ports, and no quota."""
    model = made()
    for operation, app, number, drawn in operations:
        change(model, operation, app, number, drawn)
        model.plan()
        if operation == "step":
            model.host_step()
            model.fails = lambda task: False
    model.fails = lambda task: False
    model.settle()
    waiting = [task for task in model.alive() if not task.node_id]
    assert all(task.status.message for task in waiting)
    if not waiting:
        return
    keep = waiting[0].app
    for host in HOSTS:
        well(model, host)
        model.change_node(host, state=objects.NODE_STATE_READY, availability=objects.AVAILABILITY_ACTIVE)
        node = node_named(model, host)
        node.description.memory_bytes, node.description.cpu_millis = 64 * GIB, 64_000
        for number in range(CARDS, 40):
            node.description.devices.add(kind=CARD, name=str(number), units=[f"/dev/card{number}"])
        for each in node.description.devices:
            each.tasks_max = 0 if each.kind == CARD else 100
        model.apply(TransactionBuilder().update(node))
    request = control.SetQuotaRequest(tenant="default", quota=objects.Quota(tasks=1_000))
    model.apply(plan_set_quota(model.store, request, model.new_id)[1])
    model.settle()
    left = [task for task in model.alive() if task.app == keep and not task.node_id]
    # Ports of hosts are the one thing of which there is no more.
    assert all("port" in task.status.message for task in left), [task.status.message for task in left]
