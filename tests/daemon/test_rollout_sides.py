"""How two versions of a service stand beside each other: canaries by steps, and blue/green."""

from __future__ import annotations

import pytest

from daemon.errors import Refused
from daemon.leader.host_state_plan import HostStates
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel, app_spec, with_volume
from tests.daemon.rollouts import (
    ROLLBACK,
    Request,
    Rollout,
    blue_green,
    canary,
    pass_time,
    rollout,
    steer,
    traffic,
)
from tests.daemon.test_rollout_plan import bad, deployed, running, version


def test_a_canary_waits_at_each_step_by_hand_or_by_time() -> None:
    steps = (objects.RolloutStep(share_millionths=200_000), objects.RolloutStep(tasks=2, wait_ms=30_000))
    model = deployed(canary(1, *steps))
    model.deploy(app_spec(web=canary(2, *steps)))
    pass_time(model, 60_000)
    assert running(model) == ["1", "1", "1", "2"]
    assert rollout(model).state == Rollout.STATE_WAITING
    assert "step 1 of 2: 1 of 4 tasks are new" in rollout(model).message
    assert steer(model, Request.PROMOTE) == "shop/web: goes on to step 2 of 2"
    pass_time(model, 20_000)
    assert running(model) == ["1", "1", "2", "2"]
    pass_time(model, 40_000)
    assert running(model) == ["2"] * 4
    assert rollout(model).state == Rollout.STATE_DONE


def test_a_canary_keeps_its_share_when_tasks_are_lost_and_made() -> None:
    step = objects.RolloutStep(share_millionths=250_000)
    model = deployed(canary(1, step))
    model.deploy(app_spec(web=canary(2, step)))
    pass_time(model, 10_000)
    model.deploy(app_spec(web=canary(2, step, replicas=8)))
    pass_time(model, 10_000)
    assert running(model) == ["1"] * 6 + ["2"] * 2
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    pass_time(model, 10_000)
    assert running(model) == ["1"] * 6 + ["2"] * 2
    steer(model, Request.ABORT)
    model.settle()
    assert running(model) == ["1"] * 8


def test_a_canary_can_be_promoted_to_all_tasks() -> None:
    steps = [objects.RolloutStep(tasks=count) for count in (1, 2, 3)]
    model = deployed(canary(1, *steps))
    model.deploy(app_spec(web=canary(2, *steps)))
    pass_time(model, 5_000)
    assert steer(model, Request.PROMOTE, all_steps=True) == "shop/web: goes on to all tasks"
    model.settle()
    assert running(model) == ["2"] * 4
    with pytest.raises(Refused):
        steer(model, Request.PROMOTE)


def test_blue_green_switches_when_all_are_ready_and_keeps_the_older_ones() -> None:
    model = deployed(blue_green(1))
    model.unready = lambda task: task.spec.container.environment["VERSION"] == "2" and task.slot == 3
    model.deploy(app_spec(web=blue_green(2)))
    pass_time(model, 10_000)
    assert running(model) == ["1", "1", "1", "2", "2"]
    assert traffic(model) == ["1", "1", "1"]
    model.unready = lambda task: False
    for _ in range(20):
        model.plan()
        assert traffic(model) in (["1"] * 3, ["2"] * 3)
        model.host_step()
        model.now_unix_ms += 300
    assert traffic(model) == ["2"] * 3
    assert running(model) == ["1"] * 3 + ["2"] * 3
    assert rollout(model).state == Rollout.STATE_DONE
    pass_time(model, 70_000)
    assert running(model) == traffic(model) == ["2"] * 3
    assert not model.service("web").HasField("traffic")


def test_hosts_hear_of_a_switch_as_one_change() -> None:
    model = deployed(blue_green(1))
    model.deploy(app_spec(web=blue_green(2)))
    states = HostStates(model.store)
    model.batches.clear()
    sides = []
    for _ in range(20):
        model.plan()
        for batch in model.batches:
            changed = [item.endpoint.ready for item in states.advance(batch).common.put if item.HasField("endpoint")]
            if True in changed and False in changed:
                sides.append(sorted(changed))
        model.batches.clear()
        model.host_step()
        model.now_unix_ms += 300
    assert sides == [[False] * 3 + [True] * 3]


def test_a_drain_moves_the_side_that_has_traffic_while_the_other_is_kept() -> None:
    model = deployed(blue_green(1, replicas=6), nodes=4)
    model.deploy(app_spec(web=blue_green(2, replicas=6)))
    pass_time(model, 10_000)
    model.change_node("host-1", availability=objects.AVAILABILITY_DRAINING)
    for _ in range(40):
        model.plan()
        assert len(traffic(model)) >= 6
        model.host_step()
        model.now_unix_ms += 400
    assert traffic(model) == ["2"] * 6
    assert "host-1" not in model.hosts()
    assert model.service("web").HasField("traffic")


def test_blue_green_goes_back_at_once_while_the_older_ones_are_kept() -> None:
    model = deployed(blue_green(1))
    before = {task.meta.id for task in model.serving()}
    model.deploy(app_spec(web=blue_green(2)))
    pass_time(model, 10_000)
    assert traffic(model) == ["2"] * 3
    steer(model, Request.ROLL_BACK)
    model.plan()
    assert traffic(model) == ["1"] * 3
    model.settle()
    assert {task.meta.id for task in model.serving()} == before
    assert traffic(model) == ["1"] * 3


def test_blue_green_that_fails_before_the_switch_leaves_traffic_where_it_is() -> None:
    first, second = blue_green(1), bad(blue_green(2))
    second.update.CopyFrom(objects.UpdateConfig(parallelism=1, failure_action=ROLLBACK))
    model = deployed(first)
    before = {task.meta.id for task in model.serving()}
    model.deploy(app_spec(web=second))
    for _ in range(40):
        model.plan()
        assert traffic(model) == ["1"] * 3
        model.host_step()
        model.now_unix_ms += 300
    assert {task.meta.id for task in model.serving()} == before
    assert rollout(model).back_to == 1 and rollout(model).state == Rollout.STATE_DONE


def test_a_third_version_overtakes_a_blue_green_change() -> None:
    model = deployed(blue_green(1))
    model.unready = lambda task: task.spec.container.environment["VERSION"] == "2"
    model.deploy(app_spec(web=blue_green(2)))
    pass_time(model, 5_000)
    model.deploy(app_spec(web=blue_green(3)))
    for _ in range(40):
        model.plan()
        assert traffic(model) in (["1"] * 3, ["3"] * 3)
        model.host_step()
        model.now_unix_ms += 300
    assert traffic(model) == ["3"] * 3
    model.deploy(app_spec(web=version(4)))  # and rolling again, with older ones kept: 1 must not come back
    for _ in range(60):
        model.plan()
        assert "1" not in traffic(model) and len(traffic(model)) >= 3
        model.host_step()
        model.now_unix_ms += 300
    model.settle()
    assert traffic(model) == running(model) == ["4"] * 3


def test_an_older_side_that_is_lost_before_the_switch_is_made_again() -> None:
    model = deployed(blue_green(1), nodes=4)
    model.unready = lambda task: task.spec.container.environment["VERSION"] == "2"
    model.deploy(app_spec(web=blue_green(2)))
    pass_time(model, 5_000)
    model.change_node("host-1", state=objects.NODE_STATE_DOWN)
    pass_time(model, 5_000)
    assert traffic(model) == ["1"] * 3


def test_blue_green_is_refused_where_two_tasks_cannot_be_there_at_once() -> None:
    model = ClusterModel()
    with pytest.raises(Refused, match="named volume"):
        model.deploy(app_spec(volumes=["data"], web=with_volume(blue_green(1), "data")))
