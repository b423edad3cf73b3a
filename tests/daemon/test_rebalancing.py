"""Rebalancing: which moves, in which order, within which bounds, and that each row of moves ends."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from daemon.deploying.rebalance_changes_plan import plan_rebalance
from daemon.errors import Refused
from daemon.orchestration.move_plan import READY_MS_MAX
from daemon.orchestration.rebalance_course_plan import Round, plan_rebalancing
from daemon.orchestration.rebalance_plan import GIVEN_UP_MS
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


def test_a_task_that_has_moved_may_move_again() -> None:
    model = ClusterModel(2)
    model.change_node("host-1", state=DOWN)
    model.deploy(app_spec(web=service_spec(4)))
    model.settle()
    model.change_node("host-1", state=READY)
    model.settle()
    ask(model)
    run(model)
    assert Counter(model.hosts()) == {"host-1": 2, "host-2": 2}
    for host in ("host-3", "host-4"):
        model.add_node(host)
    assert {move.from_node for move in ask(model).moves} == {"host-1", "host-2"}
    run(model)
    assert set(model.hosts()) == {"host-1", "host-2", "host-3", "host-4"}


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
