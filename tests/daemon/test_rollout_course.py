"""How a rollout goes as its service says: groups, delays, failures, ways back, and whatever chance puts together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.deploying.revisions_plan import REVISIONS_MAX
from daemon.errors import Kind, Refused
from daemon.orchestration.orchestrator_plan import plan
from daemon.orchestration.task_states import ended
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec
from tests.daemon.rollouts import (
    CONTINUE,
    PAUSE,
    ROLLBACK,
    Request,
    Rollout,
    blue_green,
    canary,
    pass_time,
    rollout,
    steer,
    traffic,
    updated,
)
from tests.daemon.test_rollout_plan import bad, check_invariants, deployed, is_bad, running, version


@pytest.mark.parametrize(("parallelism", "at_once"), [(1, 1), (2, 2), (0, 4)])
def test_so_many_tasks_are_replaced_at_once(parallelism: int, at_once: int) -> None:
    model = deployed(updated(1))
    model.deploy(app_spec(web=updated(2, parallelism=parallelism)))
    most = 0
    for _ in range(60):
        model.plan()
        assert len(model.serving()) >= 4
        most = max(most, len(model.alive()) - 4)
        model.host_step()
        model.now_unix_ms += 300
    assert running(model) == ["2"] * 4
    assert most == at_once
    assert rollout(model).state == Rollout.STATE_DONE


def test_a_delay_lies_between_a_group_that_has_settled_and_the_next() -> None:
    model = deployed(updated(1))
    model.deploy(app_spec(web=updated(2, parallelism=2, delay_ms=30_000)))
    pass_time(model, 25_000)
    assert running(model) == ["1", "1", "2", "2"]
    pass_time(model, 10_000)
    assert running(model) == ["2"] * 4


def test_stop_first_ends_a_task_before_the_next_begins() -> None:
    model = deployed(updated(1, 2))
    model.deploy(app_spec(web=updated(2, 2, order=objects.UPDATE_ORDER_STOP_FIRST)))
    for _ in range(40):
        model.plan()
        assert len([task for task in model.tasks() if not ended(task)]) <= 2
        assert len(model.serving()) >= 1
        model.host_step()
        model.now_unix_ms += 500
    assert running(model) == ["2", "2"]


def test_a_canary_that_stops_first_takes_no_more_than_its_step() -> None:
    model = deployed(updated(1))
    spec = canary(2, objects.RolloutStep(tasks=1))
    spec.update.CopyFrom(objects.UpdateConfig(parallelism=0, order=objects.UPDATE_ORDER_STOP_FIRST))
    model.deploy(app_spec(web=spec))
    pass_time(model, 20_000)
    assert running(model) == ["1", "1", "1", "2"]
    assert rollout(model).state == Rollout.STATE_WAITING


def test_a_failed_task_pauses_the_update_until_it_is_resumed() -> None:
    model = deployed(updated(1, failure_action=PAUSE))
    model.deploy(app_spec(web=bad(updated(2, failure_action=PAUSE))))
    pass_time(model, 10_000)
    assert running(model) == ["1"] * 4
    assert rollout(model).state == Rollout.STATE_FAILED
    assert "1 of 4 new tasks failed: it ended with exit code 1" in rollout(model).message
    model.fails = lambda task: False  # what was missing is there now
    pass_time(model, 60_000)
    assert running(model) == ["1", "1", "1", "2"]
    steer(model, Request.RESUME)
    model.settle()
    assert running(model) == ["2"] * 4
    assert rollout(model).state == Rollout.STATE_DONE


def test_failures_below_the_ratio_do_not_stop_the_update() -> None:
    spec = updated(2, failure_action=ROLLBACK, max_failure_millionths=250_000)
    model = deployed(updated(1))
    model.deploy(app_spec(web=spec))
    model.fails = lambda task: task.spec.container.environment["VERSION"] == "2" and task.slot == 2
    pass_time(model, 40_000)
    assert rollout(model).state == Rollout.STATE_DONE
    assert running(model) == ["1", "2", "2", "2"]  # the old one serves in the failing one's place
    assert "1 of its tasks failed" in rollout(model).message


def test_an_update_that_continues_passes_over_failures() -> None:
    model = deployed(updated(1, failure_action=CONTINUE))
    model.deploy(app_spec(web=bad(updated(2, failure_action=CONTINUE))))
    pass_time(model, 40_000)
    assert len({task.slot for task in model.tasks() if is_bad(task)}) == 4
    assert running(model) == ["1"] * 4


def test_an_update_that_fails_goes_back_by_itself_and_replaces_only_what_was_new() -> None:
    model = deployed(updated(1))
    before = {task.meta.id for task in model.serving()}
    spec = updated(2, failure_action=ROLLBACK)
    model.deploy(app_spec(web=spec))
    model.fails = lambda task: task.spec.container.environment["VERSION"] == "2" and task.slot == 3
    lowest = 4
    for _ in range(60):
        model.plan()
        lowest = min(lowest, len(model.serving()))
        model.host_step()
        model.now_unix_ms += 500
    assert lowest == 4
    assert running(model) == ["1"] * 4
    assert (rollout(model).state, rollout(model).back_to) == (Rollout.STATE_DONE, 1)
    assert "1 of 4 new tasks failed" in rollout(model).message
    after = {task.meta.id: task.slot for task in model.serving()}
    assert len(before & after.keys()) == 2  # slots 1 and 2 had been replaced
    revisions = model.service("web").revisions
    assert [(each.generation, each.failed) for each in revisions] == [(1, False), (2, True)]
    assert model.service("web").generation == 3


def test_a_first_version_has_nothing_to_go_back_to() -> None:
    model = deployed(updated(1))
    model.deploy(app_spec(web=bad(updated(2, failure_action=ROLLBACK))))
    service = objects.Service()
    service.CopyFrom(model.service("web"))
    del service.revisions[:]
    model.apply(TransactionBuilder().update(service))
    pass_time(model, 5_000)
    assert rollout(model).state == Rollout.STATE_FAILED
    assert "nothing to go back to" in rollout(model).message


def test_a_way_back_that_fails_too_pauses() -> None:
    config: dict[str, Any] = {"failure_action": ROLLBACK, "rollback": {"failure_action": PAUSE}}
    model = deployed(updated(1))
    before = {task.meta.id for task in model.serving()}
    model.deploy(app_spec(web=updated(2, **config)))
    model.fails = lambda task: task.meta.id not in before and (task.slot == 3 or task.generation == 3)
    pass_time(model, 30_000)
    assert (rollout(model).back_to, rollout(model).state) == (1, Rollout.STATE_FAILED)
    assert running(model) == ["1", "1", "2", "2"] or running(model) == ["1", "1", "2"]


def test_failures_count_until_the_monitor_ends() -> None:
    model = deployed(updated(1))
    model.deploy(app_spec(web=updated(2, parallelism=0, failure_action=ROLLBACK, monitor_ms=20_000)))
    pass_time(model, 10_000)
    assert running(model) == ["2"] * 4 and rollout(model).state == Rollout.STATE_GOING
    model.fails = lambda task: task.spec.container.environment["VERSION"] == "2" and task.slot == 1
    pass_time(model, 20_000)
    assert running(model) == ["1"] * 4
    assert rollout(model).back_to == 1


def test_after_the_monitor_a_failure_is_only_a_failure() -> None:
    model = deployed(updated(1))
    model.deploy(app_spec(web=updated(2, parallelism=0, failure_action=ROLLBACK, monitor_ms=5_000)))
    pass_time(model, 15_000)
    assert rollout(model).state == Rollout.STATE_DONE
    model.fails = lambda task: task.slot == 1 and task.attempt == 0
    pass_time(model, 5_000)
    assert rollout(model).back_to == 0


def test_revisions_are_kept_and_gone_back_to() -> None:
    model = deployed(version(1))
    for number in range(2, REVISIONS_MAX + 5):
        model.deploy(app_spec(web=version(number)))
        model.settle()
    assert len(model.service("web").revisions) == REVISIONS_MAX
    number = model.service("web").generation
    assert steer(model, Request.ROLL_BACK, to_revision=number - 3) == f"shop/web goes back to revision {number - 3}"
    model.settle()
    assert running(model) == [str(number - 3)] * 3
    steer(model, Request.ROLL_BACK)
    model.settle()
    assert running(model) == [str(number)] * 3
    with pytest.raises(Refused, match="has no revision 1;") as refused:
        steer(model, Request.ROLL_BACK, to_revision=1)
    assert refused.value.kind == Kind.NOT_FOUND


def test_a_way_back_takes_ports_again_or_says_who_has_them() -> None:
    with_port = version(1)
    with_port.ports.add(protocol="tcp", target=80, published=8080)
    model = deployed(with_port)
    model.deploy(app_spec(web=version(2)))
    model.settle()
    steer(model, Request.ROLL_BACK)
    assert [lease.meta.name for lease in model.store.table(objects.Lease) if "port/" in lease.meta.name]
    model.settle()
    model.deploy(app_spec(web=version(3)))
    model.settle()
    other = version(9)
    other.ports.add(protocol="tcp", target=80, published=8080)
    model.deploy(app_spec(name="other", api=other))
    with pytest.raises(Refused, match="published by service other/api"):
        steer(model, Request.ROLL_BACK, to_revision=1)


def test_a_paused_rollout_replaces_no_task_and_keeps_what_fails_as_it_was() -> None:
    model = deployed(version(1, 4))
    model.deploy(app_spec(web=version(2, 4)))
    pass_time(model, 2_000)
    steer(model, Request.PAUSE)
    pass_time(model, 5_000)
    before = running(model)
    assert set(before) == {"1", "2"}
    model.change_node(
        model.node_of(next(t for t in model.serving() if t.generation == 1)).meta.name, state=objects.NODE_STATE_DOWN
    )
    pass_time(model, 20_000)
    assert running(model) == before
    steer(model, Request.RESUME)
    model.settle()
    assert running(model) == ["2"] * 4
    with pytest.raises(Refused, match="nothing of shop/web is being replaced"):
        steer(model, Request.PAUSE)


def test_a_new_leader_goes_on_where_the_last_one_stopped() -> None:
    """Whatever it knows is in the store: a plan of a copy of it is the same plan."""
    step = objects.RolloutStep(tasks=2, wait_ms=5_000)
    model = deployed(canary(1, step))
    model.deploy(app_spec(web=canary(2, step)))
    for _ in range(40):
        ids = iter(f"same{number}" for number in range(1_000))
        again = iter(f"same{number}" for number in range(1_000))
        first = plan(model.store, model.now_unix_ms, lambda: next(ids))  # noqa: B023
        second = plan(model.store, model.now_unix_ms, lambda: next(again))  # noqa: B023
        assert first.builder.build("r", "a", 1) == second.builder.build("r", "a", 1)
        model.plan()
        model.host_step()
        model.now_unix_ms += 700
    assert running(model) == ["2"] * 4


SPECS: tuple[Callable[[int, int], objects.ServiceSpec], ...] = (
    lambda number, count: version(number, count),
    lambda number, count: updated(number, count, parallelism=2, failure_action=ROLLBACK),
    lambda number, count: bad(updated(number, count, parallelism=0, failure_action=ROLLBACK, monitor_ms=2_000)),
    lambda number, count: bad(updated(number, count, failure_action=PAUSE, delay_ms=1_000)),
    lambda number, count: updated(number, count, order=objects.UPDATE_ORDER_STOP_FIRST, failure_action=CONTINUE),
    lambda number, count: canary(number, objects.RolloutStep(share_millionths=300_000), replicas=count),
    lambda number, count: blue_green(number, count, keep_ms=3_000),
    lambda number, count: bad(blue_green(number, count)),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("deploy"), st.integers(0, len(SPECS) - 1), st.integers(1, 4)),
        st.tuples(st.just("steer"), st.sampled_from(sorted(Request.Action.values())[1:]), st.just(0)),
        st.tuples(st.sampled_from(["down", "up", "drain", "activate"]), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 6), st.integers(0, 6)),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_whatever_is_deployed_and_steered_the_next_plain_version_is_reached(
    operations: list[tuple[str, int, int]],
) -> None:
    model = deployed(version(0))
    for number, (operation, value, more) in enumerate(operations, 1):
        match operation:
            case "deploy":
                model.deploy(app_spec(web=SPECS[value](number, more)))
            case "steer":
                with contextlib.suppress(Refused):
                    steer(model, value)  # type: ignore[arg-type]
            case "down" | "up":
                state = objects.NODE_STATE_DOWN if operation == "down" else objects.NODE_STATE_READY
                model.change_node(f"host-{value}", state=state)
            case "drain" | "activate":
                drained = operation == "drain"
                availability = objects.AVAILABILITY_DRAINING if drained else objects.AVAILABILITY_ACTIVE
                model.change_node(f"host-{value}", availability=availability)
            case "step":
                for _ in range(value):
                    model.plan()
                    model.host_step()
                    model.now_unix_ms += more * 300
        passes = 1
        while len(model.plan().builder):
            passes += 1
            assert passes < 12, "passes go on finding something to do though nothing happened"
        check_invariants(model)
    for number in (1, 2, 3):
        model.change_node(f"host-{number}", state=objects.NODE_STATE_READY, availability=objects.AVAILABILITY_ACTIVE)
    model.deploy(app_spec(web=version(99)))
    model.settle(rounds_max=120)
    check_invariants(model)
    assert running(model) == traffic(model) == ["99"] * 3
    assert rollout(model).state == Rollout.STATE_DONE


def test_the_network_of_what_may_be_gone_back_to_is_there_until_the_rollout_is_done() -> None:
    model = ClusterModel()
    model.deploy(app_spec(web=updated(1)))
    model.settle()
    failing = {2}
    model.fails = lambda task: int(task.spec.container.environment["VERSION"]) in failing
    for fails, number in ((True, 2), (False, 3)):
        spec = updated(number, parallelism=0, order=objects.UPDATE_ORDER_STOP_FIRST, failure_action=ROLLBACK)
        spec.networks[:] = ["other"]
        app = app_spec(web=spec)
        app.networks["other"].SetInParent()
        model.deploy(app)
        model.settle()
        names = {network.meta.id: network.meta.name for network in model.store.table(objects.Network)}
        expected = "default" if fails else "other"
        assert list(names.values()) == [expected]
        assert [[names[each] for each in task.networks] for task in model.serving()] == [[expected]] * 4
