"""Rebalancing: which moves, in which order, within which bounds, and that each row of moves ends."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.rebalance_changes_plan import plan_rebalance
from daemon.errors import Refused
from daemon.orchestration.draft import Draft
from daemon.orchestration.move_plan import READY_MS_MAX
from daemon.orchestration.rebalance_course_plan import Round, plan_rebalancing
from daemon.orchestration.rebalance_plan import GIVEN_UP_MS, Balance, left_alone
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import GIB, ClusterModel, app_spec, service_spec, with_volume

DOWN, READY = objects.NODE_STATE_DOWN, objects.NODE_STATE_READY
Reply = control.RebalanceReply


def ask(model: ClusterModel, target: str = "", **fields: Any) -> control.RebalanceReply:
    request = control.RebalanceRequest(target=target, **fields)
    reply, builder = plan_rebalance(model.store, request, model.now_unix_ms, model.new_id)
    if len(builder):
        model.apply(builder)
    return reply


def state(model: ClusterModel) -> objects.Rebalancing:
    return next(iter(model.store.table(objects.Cluster))).rebalancing


def look(model: ClusterModel, hurried: bool = False) -> bool:
    """One look of the leader for the next move; whether it changed something."""
    round_ = model.__dict__.setdefault("round", Round())
    found = plan_rebalancing(model.store, model.now_unix_ms, model.new_id, round_, lambda: hurried)
    model.__dict__["round"] = found.round
    if len(found.builder):
        model.apply(found.builder)
    return bool(len(found.builder))


def run(model: ClusterModel, seconds: int = 120, hurried: bool = False) -> None:
    """Until what was asked for is done; never with a task less serving than before."""
    serving = Counter(task.service for task in model.serving())
    for _ in range(seconds):
        look(model, hurried)
        model.plan()
        look(model, hurried)  # also while what was replaced ends
        now = Counter(task.service for task in model.serving())
        assert all(now[service] >= count for service, count in serving.items())
        model.host_step()
        model.now_unix_ms += 1_000
        if not state(model).asked:
            return
    raise AssertionError("it does not end")


def piled_up(spec: objects.ServiceSpec, hosts: int = 3, away: int = 1) -> ClusterModel:
    """Deployed while the last hosts were down, which are there again."""
    model = ClusterModel(hosts)
    gone = [f"host-{hosts - number}" for number in range(away)]
    for host in gone:
        model.change_node(host, state=DOWN)
    model.deploy(app_spec(web=spec))
    model.settle()
    for host in gone:
        model.change_node(host, state=READY)
    model.settle()
    return model


def test_a_host_that_is_back_gets_its_share_and_a_dry_run_says_so_first() -> None:
    model = piled_up(service_spec(6))
    planned = ask(model, plan_only=True)
    assert {move.from_node for move in planned.moves} == {"host-1", "host-2"}
    assert [move.to_node for move in planned.moves] == ["host-3", "host-3"]
    assert planned.moves[0].why == f"{planned.moves[0].from_node} has 3 tasks of the service, host-3 has 0"
    assert not state(model).asked
    assert ask(model).moves == planned.moves
    run(model)
    assert Counter(model.hosts()) == {"host-1": 2, "host-2": 2, "host-3": 2}
    assert not ask(model, plan_only=True).moves
    stopped = [task for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED]
    assert all("better balance: host-" in task.desired_message for task in stopped)


def test_a_host_that_was_lost_with_its_tasks_gets_its_share_when_it_is_back() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=service_spec(6)))
    model.settle()
    model.change_node("host-3", state=DOWN)
    model.settle()
    assert Counter(model.hosts()) == {"host-1": 3, "host-2": 3}
    model.change_node("host-3", state=READY)
    model.settle()
    ask(model, settings=objects.RebalanceSettings(moves_a_minute_max=600))
    ask(model)
    run(model)
    assert Counter(model.hosts()) == {"host-1": 2, "host-2": 2, "host-3": 2}


def test_moves_are_throttled_and_one_at_a_time_for_a_service() -> None:
    model = piled_up(service_spec(9))
    settings_ = objects.RebalanceSettings(moves_a_minute_max=6)
    ask(model, settings=settings_)
    ask(model)
    begun = []
    for _ in range(60):
        moves = state(model).moves
        look(model)
        if state(model).moves > moves:
            begun.append(model.now_unix_ms)
        slots = Counter(task.slot for task in model.alive())
        assert sum(count > 1 for count in slots.values()) <= 1
        model.plan()
        model.host_step()
        model.now_unix_ms += 1_000
    assert len(begun) == 3
    assert all(later - earlier >= 10_000 for earlier, later in itertools.pairwise(begun))


def test_what_hosts_have_reserved_counts_where_the_spread_is_even() -> None:
    model = ClusterModel(2)
    for name, host in (("a", 1), ("b", 1), ("c", 1), ("d", 2)):
        spec = service_spec(resources=objects.Resources(memory_reserved_bytes=GIB))
        spec.constraints.append(f"node.hostname == host-{host}")
        model.deploy(app_spec(name, web=spec))
        model.settle()
    for name in "abcd":
        stored = next(one for one in model.store.table(objects.Service) if one.app == name)
        _freed_of_constraints(model, stored)
    model.now_unix_ms += 2_000
    planned = ask(model, plan_only=True)
    assert [(move.from_node, move.to_node) for move in planned.moves] == [("host-1", "host-2")]
    assert planned.moves[0].why == "75% of host-1 is reserved, 25% of host-2"


def _freed_of_constraints(model: ClusterModel, service: objects.Service) -> None:
    """As if it had been placed where it is when there was nothing else."""
    builder = TransactionBuilder()
    after = objects.Service()
    after.CopyFrom(service)
    del after.spec.constraints[:]
    builder.update(after)
    for task in model.store.table(objects.Task).by("service", service.meta.id):
        changed = objects.Task()
        changed.CopyFrom(task)
        del changed.spec.constraints[:]
        builder.update(changed)
    model.apply(builder)


def test_of_hosts_that_are_equal_to_the_first_level_the_levels_below_choose() -> None:
    model = ClusterModel(5)
    for number in range(1, 6):
        meta = objects.Meta(labels={"zone": str(number % 2)})
        model.change_node(f"host-{number}", meta=meta, state=DOWN if number in (1, 2, 4) else READY)
    spec = service_spec(4)
    spec.placement.spread_over.append("node.labels.zone")
    model.deploy(app_spec(web=spec))
    model.settle()
    assert Counter(model.hosts()) == {"host-3": 2, "host-5": 2}
    for number in (1, 2, 4):
        model.change_node(f"host-{number}", state=READY)
    model.settle()
    moves = ask(model, plan_only=True).moves
    assert sorted(move.to_node for move in moves) == ["host-2", "host-4"]
    assert sorted(move.from_node for move in moves) == ["host-3", "host-5"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (with_volume(service_spec(2), "data"), "keep data in volumes"),
        (service_spec(2, stateful=objects.Stateful()), "the only ones of their slots"),
        (service_spec(kind=objects.SERVICE_KIND_GLOBAL), "one task on each host"),
        (service_spec(2, kind=objects.SERVICE_KIND_JOB), "run to their end"),
        (service_spec(2, update=objects.UpdateConfig(order=objects.UPDATE_ORDER_STOP_FIRST)), "stop before others"),
    ],
)
def test_some_services_are_left_alone(spec: objects.ServiceSpec, said: str) -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=spec, volumes=["data"]))
    model.settle()
    (words,) = ask(model, plan_only=True).left_alone
    assert said in words


def test_a_service_that_is_not_at_rest_is_left_alone() -> None:
    model = piled_up(service_spec(6))
    model.unready = lambda task: task.slot == 1
    model.host_step()
    reply = ask(model)
    assert not reply.moves
    assert list(reply.left_alone) == ["shop/web: not all of its tasks have been ready for a moment"]


@pytest.mark.parametrize("how", ["fails", "is never ready", "has no room"])
def test_a_move_that_fails_does_no_harm_and_is_not_tried_again_for_a_while(how: str) -> None:
    model = piled_up(service_spec(6))
    before = {task.meta.id for task in model.alive()}
    ask(model)
    assert look(model)
    if how == "fails":
        model.fails = lambda task: task.HasField("move")
    elif how == "is never ready":
        model.unready = lambda task: task.HasField("move")
    else:
        model.change_node("host-3", availability=objects.AVAILABILITY_CORDONED)
    for _ in range(READY_MS_MAX // 5_000 + 10):
        model.plan()
        model.host_step()
        model.now_unix_ms += 5_000
    assert {task.meta.id for task in model.alive()} == before
    (given_up,) = state(model).given_up
    assert given_up.service_id == model.service("web").meta.id
    run(model)  # which ends, though nothing is moved
    model.fails = model.unready = lambda task: False
    model.change_node("host-3", availability=objects.AVAILABILITY_ACTIVE)
    assert not ask(model).moves
    model.now_unix_ms += GIVEN_UP_MS
    assert len(ask(model).moves) == 2


def test_a_task_that_moves_stays_where_it_goes_when_the_old_host_is_lost_meanwhile() -> None:
    model = piled_up(service_spec(6))
    ask(model)
    look(model)
    model.plan()
    (moving,) = [task for task in model.alive() if task.HasField("move")]
    old = next(task for task in model.alive() if task.slot == moving.slot and task.meta.id != moving.meta.id)
    model.change_node(model.node_of(old).meta.name, state=DOWN)
    model.settle()
    assert moving.meta.id in {task.meta.id for task in model.alive()}
    assert len(model.serving()) == 6


def test_an_update_passes_over_a_move_that_is_under_way() -> None:
    model = piled_up(service_spec(6))
    ask(model)
    look(model)
    model.plan()
    changed = service_spec(6)
    changed.container.environment["VERSION"] = "2"
    model.deploy(app_spec(web=changed))
    model.settle()
    assert len(model.serving()) == 6
    assert {task.generation for task in model.alive()} == {2}


def test_by_itself_only_when_it_is_set_and_nothing_has_changed_for_a_while() -> None:
    model = piled_up(service_spec(6))
    model.now_unix_ms += 600_000
    assert not look(model)
    ask(model, settings=objects.RebalanceSettings(automatic=True, after_ms=30_000))
    model.change_node("host-2", state_since_unix_ms=model.now_unix_ms)
    model.now_unix_ms += 20_000
    assert not look(model)
    model.now_unix_ms += 10_000
    assert look(model)
    for _ in range(120):
        look(model)
        model.plan()
        model.host_step()
        model.now_unix_ms += 1_000
    assert Counter(model.hosts()) == {"host-1": 2, "host-2": 2, "host-3": 2}


def test_stop_ends_what_was_asked_for_and_one_service_may_be_named() -> None:
    model = piled_up(service_spec(6))
    with pytest.raises(Refused, match="there is no service"):
        ask(model, "nothing")
    ask(model, "shop/web")
    assert state(model).target == "shop/web"
    ask(model, stop=True)
    assert not look(model)
    with pytest.raises(Refused, match="too many"):
        ask(model, settings=objects.RebalanceSettings(moves_a_minute_max=10_000))


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
