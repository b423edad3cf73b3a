"""A leader that got no processor for a while holds that against nobody."""

from __future__ import annotations

from daemon.leader.liveness_plan import Limits, Signs, plan_liveness
from daemon.leader.waking_time import STEP_S_MAX, WakingTime
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel

LIMITS = Limits(down_s=3.0, restart_s=10.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_leader_that_slept_takes_nobody_down_and_one_that_ran_does() -> None:
    clock, model = Clock(), ClusterModel(3)
    time = WakingTime(clock)
    started_s = time.now()
    heard = {node.meta.id: started_s for node in model.store.table(objects.Node)}
    signs = Signs(heard, started_s)
    clock.now_s += 60  # reports have come meanwhile, and are read after this
    assert not len(plan_liveness(model.store, signs, LIMITS, time.now(), 0))
    time.tick()
    assert not len(plan_liveness(model.store, signs, LIMITS, time.now(), 0))
    for _ in range(40):
        clock.now_s += 0.1
        time.tick()
    assert len(plan_liveness(model.store, signs, LIMITS, time.now(), 0)) == 3


def test_what_passes_between_ticks_counts_up_to_a_step() -> None:
    clock = Clock()
    time = WakingTime(clock)
    clock.now_s += 0.3
    assert time.now() == 1000.3
    clock.now_s += 10
    assert time.now() == 1000.0 + STEP_S_MAX
    time.tick()
    assert time.now() == 1000.0 + STEP_S_MAX
