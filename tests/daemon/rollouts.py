"""Services that are changed in one of the ways there are, in the model of a cluster, for tests of rollouts."""

from __future__ import annotations

from typing import Any

from daemon.deploying.rollout_changes_plan import plan_steer
from daemon.leader.endpoints_plan import endpoint_of
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from tests.daemon.cluster_model import ClusterModel
from tests.daemon.test_rollout_plan import version

Request = control.SteerRolloutRequest
Rollout = objects.Rollout
Strategy = objects.RolloutSpec
ROLLBACK, PAUSE, CONTINUE = (
    objects.FAILURE_ACTION_ROLLBACK,
    objects.FAILURE_ACTION_PAUSE,
    objects.FAILURE_ACTION_CONTINUE,
)


def updated(
    number: int, replicas: int = 4, *, rollback: dict[str, Any] | None = None, **config: Any
) -> objects.ServiceSpec:
    spec = version(number, replicas)
    spec.update.CopyFrom(objects.UpdateConfig(**{"parallelism": 1, **config}))
    if rollback is not None:
        spec.rollback.CopyFrom(objects.UpdateConfig(**{"parallelism": 1, **rollback}))
    return spec


def canary(number: int, *steps: objects.RolloutStep, replicas: int = 4) -> objects.ServiceSpec:
    spec = version(number, replicas)
    spec.rollout.CopyFrom(Strategy(strategy=Strategy.STRATEGY_CANARY, steps=steps))
    return spec


def blue_green(number: int, replicas: int = 3, keep_ms: int = 60_000) -> objects.ServiceSpec:
    spec = version(number, replicas)
    spec.rollout.CopyFrom(Strategy(strategy=Strategy.STRATEGY_BLUE_GREEN, keep_ms=keep_ms))
    return spec


def steer(model: ClusterModel, action: Request.Action.ValueType, **fields: Any) -> str:
    request = Request(service="web", action=action, **fields)
    (_, message), builder = plan_steer(model.store, model.service("web"), request, model.now_unix_ms)
    model.apply(builder)
    return message


def rollout(model: ClusterModel) -> objects.Rollout:
    return model.service("web").rollout


def traffic(model: ClusterModel) -> list[str]:
    """Versions of the tasks that clients are sent to."""
    found = []
    for task in model.tasks():
        endpoint = endpoint_of(model.store, task)
        if endpoint is not None and endpoint.ready:
            found.append(task.spec.container.environment["VERSION"])
    return sorted(found)


def pass_time(model: ClusterModel, milliseconds: int, step_ms: int = 500) -> None:
    for _ in range(0, milliseconds, step_ms):
        model.plan()
        model.host_step()
        model.now_unix_ms += step_ms
    model.plan()
