"""An operator's restart: of a service by its rollout, as an update would go, or of one slot at once. Pure."""

from __future__ import annotations

from daemon.deploying.revisions_plan import start_rollout
from daemon.errors import Kind, Refused
from daemon.lookup import find_services, find_tasks
from daemon.orchestration.kinds import is_job
from daemon.orchestration.task_states import assigned, wanted
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

RESTARTED = "restarted by an operator"


def plan_restart(store: Store, target: str, now_unix_ms: int) -> tuple[control.RestartReply, TransactionBuilder]:
    """What to tell, with the service as it will be, and the transaction. Raises Refused."""
    try:
        services = find_services(store, target)
    except Refused:
        return _restart_task(store, target)
    if len(services) > 1:
        names = ", ".join(sorted(f"{service.app}/{service.meta.name}" for service in services))
        raise Refused(f"{target!r} is the name of several services ({names}); write APP/SERVICE")
    return _restart_service(services[0], now_unix_ms)


def with_restart(before: objects.ServiceSpec, spec: objects.ServiceSpec) -> objects.ServiceSpec:
    """The spec of a file, which knows of no restart, for a service that may have had one: nothing is replaced by it."""
    if not before.restarted:
        return spec
    carried = objects.ServiceSpec()
    carried.CopyFrom(spec)
    carried.restarted = before.restarted
    return carried


def _restart_service(service: objects.Service, now_unix_ms: int) -> tuple[control.RestartReply, TransactionBuilder]:
    name = _checked_name(service)
    after = objects.Service()
    after.CopyFrom(service)
    # The number makes the version another one, so none of the tasks that run can be taken over into it.
    after.spec.restarted = service.generation + 1
    start_rollout(service, after, [RESTARTED], now_unix_ms)
    builder = TransactionBuilder().needs(WORKLOADS_LEVEL)
    builder.update(after)
    return control.RestartReply(service=after, message=f"{name}: its tasks are replaced"), builder


def _restart_task(store: Store, target: str) -> tuple[control.RestartReply, TransactionBuilder]:
    """The task is told to stop, and so its slot is without a task: the orchestrator makes another, whatever the restart
    policy says of tasks that end by themselves."""
    found = [task for task in find_tasks(store, target) if wanted(task) and assigned(task)]
    if not found:
        raise Refused(f"no task {target!r} is wanted on a host; `fairway ps -a` says how it is", Kind.NOT_POSSIBLE)
    if len({(task.service_id, task.slot) for task in found}) > 1:
        names = ", ".join(sorted({f"{task.app}/{task.meta.name}" for task in found}))
        raise Refused(f"{target!r} is the name of several tasks ({names}); write APP/TASK")
    service = store.get(objects.Service, found[0].service_id)
    if service is None:
        raise Refused(f"the service of {target} is gone", Kind.NOT_POSSIBLE)
    _checked_name(service)
    builder = TransactionBuilder()
    for task in found:  # two of them while one replaces the other
        edited = objects.Task()
        edited.CopyFrom(task)
        edited.desired, edited.desired_message = objects.DESIRED_STATE_STOPPED, RESTARTED
        builder.update(edited)
    name = f"{found[-1].app}/{found[-1].meta.name}"
    message = f"{name}: it is replaced"
    return control.RestartReply(service=service, message=message, task_name=found[-1].meta.name), builder


def _checked_name(service: objects.Service) -> str:
    name = f"{service.app}/{service.meta.name}"
    if service.removing:
        raise Refused(f"{name} is being removed; deploy its app again to have it back", Kind.NOT_POSSIBLE)
    if is_job(service.spec):
        raise Refused(f"{name} is a job; `fairway trigger {name}` begins a run of it", Kind.NOT_POSSIBLE)
    return name
