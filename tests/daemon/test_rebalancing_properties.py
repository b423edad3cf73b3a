"""Rebalancing of drawn clusters: each move makes it strictly better, rows of moves end, and services stay whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.orchestration.draft import Draft
from daemon.orchestration.rebalance_plan import Balance, left_alone
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec
from tests.daemon.test_rebalancing import DOWN, READY, ask, run

SPECS = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 5),
        "memory": st.sampled_from([0, 0, GIB // 8, GIB // 2]),
        "cpu": st.sampled_from([0, 0, 250, 900]),
        "kind": st.sampled_from(["plain", "plain", "zones", "pack", "per node", "near", "away", "not on"]),
    }
)


def _service(drawn: dict[str, Any]) -> objects.ServiceSpec:
    resources = objects.Resources(memory_reserved_bytes=drawn["memory"], cpu_reserved_millis=drawn["cpu"])
    spec = service_spec(drawn["replicas"], resources=resources)
    match drawn["kind"]:
        case "zones":
            spec.placement.spread_over.append("node.labels.zone")
        case "pack":
            spec.placement.pack = True
        case "per node":
            spec.placement.per_node_max = 2
        case "near":
            spec.placement.affinities.add(service="a", weight=5)
        case "away":
            spec.placement.affinities.add(service="a", anti=True, required=True)
        case "not on":
            spec.constraints.append("node.hostname != host-2")
    return spec


def _app(app: str, **services: Any) -> control.AppSpec:
    return app_spec(app, **services)


def _measure(model: ClusterModel, places: dict[str, str]) -> tuple[int, ...]:
    """What each move must make smaller, counted by another road: sums of squares, the most important first. Of the
    levels of services only those that are the same for all kinds that the test draws are added up level by level."""
    nodes = {node.meta.id: node for node in model.store.table(objects.Node)}
    levels = [0, 0, 0, 0]
    for service in model.store.table(objects.Service):
        tasks = [task for task in model.alive() if task.service_id == service.meta.id and task.meta.id in places]
        hosts = Counter(places[task.meta.id] for task in tasks)
        zones = Counter(nodes[places[task.meta.id]].meta.labels.get("zone", "") for task in tasks)
        by_host, by_zone = (sum(count * count for count in counts.values()) for counts in (hosts, zones))
        if service.spec.placement.pack:
            continue
        first, second = (by_zone, by_host) if service.spec.placement.spread_over else (by_host, by_zone)
        levels[0] += first
        levels[1] += second
    counts: Counter[str] = Counter()
    for node in nodes.values():
        there = [task for task in model.alive() if places.get(task.meta.id) == node.meta.id]
        cpu = sum(task.spec.resources.cpu_reserved_millis for task in there) / node.description.cpu_millis
        memory = sum(task.spec.resources.memory_reserved_bytes for task in there) / node.description.memory_bytes
        levels[2] += round(max(cpu, memory) * 1_000_000) ** 2
        counts[node.meta.id] = len(there)
    levels[3] = sum(count * count for count in counts.values())
    return tuple(levels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SPECS, min_size=1, max_size=4), st.sets(st.integers(1, 5), max_size=3))
def test_each_move_makes_it_strictly_better_so_that_every_row_of_moves_ends(
    drawn: list[dict[str, Any]], away: set[int]
) -> None:
    model = ClusterModel(5)
    for number in range(1, 6):
        model.change_node(
            f"host-{number}",
            meta=objects.Meta(labels={"zone": str(number % 2)}),
            state=DOWN if number in away else READY,
            description=objects.NodeDescription(memory_bytes=4 * GIB if number % 3 else 2 * GIB),
        )
    names = "abcd"
    for name, one in zip(names, drawn, strict=False):
        spec = _service(one)
        if name != "a" or one["kind"] not in ("near", "away"):
            model.deploy(_app(f"app-{name}", **{"a": service_spec(0), name: spec}))
            model.settle()
    for number in away:
        model.change_node(f"host-{number}", state=READY)
    model.settle()
    nodes = {node.meta.id: node for node in model.store.table(objects.Node)}
    draft = Draft(model.store, model.now_unix_ms, model.new_id)
    services = list(model.store.table(objects.Service))
    balance = Balance(draft, nodes)
    places = {task.meta.id: task.node_id for task in model.alive() if task.node_id}
    before = _measure(model, places)
    count = 0
    while move := next(filter(None, (balance.best_move(each, model.now_unix_ms) for each in services)), None):
        service = model.store.get(objects.Service, move.task.service_id)
        assert service is not None and not left_alone(draft, service, nodes)
        assert places[move.task.meta.id] == move.source.meta.id
        balance.make(move)
        places[move.task.meta.id] = move.target.meta.id
        after = _measure(model, places)
        assert after < before
        before, count = after, count + 1
        assert count <= 100
    for node in nodes.values():
        there = [task for task in model.alive() if places.get(task.meta.id) == node.meta.id]
        assert sum(task.spec.resources.memory_reserved_bytes for task in there) <= node.description.memory_bytes
        assert sum(task.spec.resources.cpu_reserved_millis for task in there) <= node.description.cpu_millis


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SPECS, min_size=1, max_size=3), st.sets(st.integers(1, 4), max_size=2), st.booleans())
def test_in_a_cluster_it_ends_with_every_service_whole(
    drawn: list[dict[str, Any]], away: set[int], hurried: bool
) -> None:
    model = ClusterModel(4)
    for number in away:
        model.change_node(f"host-{number}", state=DOWN)
    for name, one in zip("abc", drawn, strict=False):
        if one["kind"] not in ("near", "away"):
            model.deploy(_app(f"app-{name}", **{name: _service(one)}))
    model.settle()
    for number in away:
        model.change_node(f"host-{number}", state=READY)
    model.settle()
    whole = Counter(task.service for task in model.serving())
    if ask(model).moves:
        run(model, 600, hurried)
    model.settle()
    assert Counter(task.service for task in model.serving()) == whole
    assert not ask(model, plan_only=True).moves
