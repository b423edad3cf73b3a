"""Operators' words about a rollout: pause, resume, promote, abort, roll back. Pure."""

from __future__ import annotations

from daemon.deploying.revisions_plan import find_revision, plan_revert
from daemon.errors import Kind, Refused
from daemon.orchestration.leases import LeasePool
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

Rollout = objects.Rollout
Request = control.SteerRolloutRequest


def plan_steer(
    store: Store, service: objects.Service, request: control.SteerRolloutRequest, now_unix_ms: int
) -> tuple[tuple[objects.Service, str], TransactionBuilder]:
    """(service as it will be, what to tell) and the transaction. Raises Refused."""
    name = f"{service.app}/{service.meta.name}"
    if service.removing:
        raise Refused(f"{name} is being removed; deploy its app again to have it back", Kind.NOT_POSSIBLE)
    builder = TransactionBuilder().needs(WORKLOADS_LEVEL)
    if request.action in (Request.ROLL_BACK, Request.ABORT):
        if request.action == Request.ABORT and (not _under_way(service) or service.rollout.back_to):
            raise Refused(
                f"no update of {name} is under way; `fairway service rollback {name}` undoes the last one",
                Kind.NOT_POSSIBLE,
            )
        revision = find_revision(service, request.to_revision)
        why = "aborted" if request.action == Request.ABORT else ""
        after, changes = plan_revert(store, LeasePool(store), service, revision, now_unix_ms, why)
        changes.into(builder)
        return (after, f"{name} goes back to revision {revision.generation}"), builder
    after = objects.Service()
    after.CopyFrom(service)
    if not _under_way(service):
        raise Refused(f"nothing of {name} is being replaced", Kind.NOT_POSSIBLE)
    message = f"{name}: {_step(after, request)}"
    if after != service:
        builder.update(after)
    return (after, message), builder


def _under_way(service: objects.Service) -> bool:
    rollout = service.rollout
    return rollout.generation == service.generation and rollout.state != Rollout.STATE_DONE


def _step(service: objects.Service, request: control.SteerRolloutRequest) -> str:
    """Changes `service` in place; what to tell."""
    rollout, name = service.rollout, f"{service.app}/{service.meta.name}"
    match request.action:
        case Request.PAUSE:
            if rollout.state != Rollout.STATE_FAILED:
                rollout.state = Rollout.STATE_PAUSED
                rollout.message = "paused by an operator"
            return "paused; no further task is replaced"
        case Request.RESUME:
            if rollout.state == Rollout.STATE_WAITING:
                raise Refused(f"{name} waits at a step; use `fairway service promote {name}`", Kind.NOT_POSSIBLE)
            rollout.state = Rollout.STATE_GOING
            del rollout.failed_slots[:]
            rollout.message = ""
            return "goes on"
        case Request.PROMOTE:
            steps = len(service.spec.rollout.steps)
            if rollout.back_to or rollout.step >= steps:
                raise Refused(f"{name} is past the last of its steps: there is nothing to promote", Kind.NOT_POSSIBLE)
            rollout.step = steps if request.all_steps else rollout.step + 1
            rollout.state = Rollout.STATE_GOING
            rollout.message = ""
            del rollout.failed_slots[:]
            return f"goes on to step {rollout.step + 1} of {steps}" if rollout.step < steps else "goes on to all tasks"
    raise Refused("the request says nothing that can be done to a rollout")
