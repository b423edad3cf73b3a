"""What must hold of how a service is updated, whoever wrote its spec. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.deploying.autoscale_checks import metric_problems
from daemon.orchestration.host_ports import host_ports
from daemon.orchestration.kinds import follows_hosts, is_job
from daemon.orchestration.task_states import named_volumes
from proto import objects_pb2 as objects

MILLION = 1_000_000
WAIT_MS_MAX = 366 * 86_400_000
STEPS_MAX = 20


def rollout_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """In words, as they go on after the service's name."""
    for what, config in (("update", spec.update), ("rollback", spec.rollback)):
        if not 0 <= config.delay_ms <= WAIT_MS_MAX or not 0 <= config.monitor_ms <= WAIT_MS_MAX:
            yield f"the delay or monitor of its {what} is negative or longer than a year"
        if config.max_failure_millionths > MILLION:
            yield f"the failure ratio of its {what} is more than 1"
    if spec.rollback.failure_action == objects.FAILURE_ACTION_ROLLBACK:
        yield "a rollback that fails cannot roll back; its failure action is pause or continue"
    if is_job(spec) and any(spec.HasField(name) for name in ("update", "rollback", "rollout")):
        yield "it is a job, whose tasks are not updated: they run to their end, and a changed job runs anew"
    strategy, rollout = spec.rollout.strategy, spec.rollout
    if strategy == objects.RolloutSpec.STRATEGY_CANARY:
        if not 0 < len(rollout.steps) <= STEPS_MAX:
            yield f"a canary has between 1 and {STEPS_MAX} steps"
        if any(step.share_millionths > MILLION or not 0 <= step.wait_ms <= WAIT_MS_MAX for step in rollout.steps):
            yield "a step of its canary has a share of more than 100% or a wait longer than a year"
        if any(not step.tasks and not step.share_millionths for step in rollout.steps):
            yield "a step of its canary has neither tasks nor a share"
    elif rollout.steps:
        yield "only a canary has steps"
    if rollout.HasField("check"):
        if strategy != objects.RolloutSpec.STRATEGY_CANARY:
            yield "only a canary has a check"
        if not spec.networks:
            yield "its new tasks cannot be checked, since it is on no network"
        yield from metric_problems(rollout.check.metric, "the metric that its new tasks are checked by")
        if rollout.check.HasField("of"):
            yield from metric_problems(rollout.check.of, "the metric that its check is a share of")
    if strategy == objects.RolloutSpec.STRATEGY_BLUE_GREEN:
        yield from _blue_green_problems(spec)


def _blue_green_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """Both versions of all tasks are there at once."""
    if not 0 <= spec.rollout.keep_ms <= WAIT_MS_MAX:
        yield "its older tasks cannot be kept for less than no time or longer than a year"
    if named_volumes(spec):
        yield "blue/green has two tasks of each at once, which a named volume does not allow; use a rolling update"
    if host_ports(spec):
        yield "blue/green has two tasks of each at once, which a port of mode host does not allow"
    if spec.update.order == objects.UPDATE_ORDER_STOP_FIRST:
        yield "blue/green has two tasks of each at once, so the order of its update cannot be stop-first"
    if follows_hosts(spec) or spec.HasField("stateful"):
        yield "blue/green is for replicated services"
