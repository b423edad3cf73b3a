"""Which services wait for others before their first task starts (Compose's depends_on). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemon.orchestration.kinds import follows_hosts, is_job
from daemon.orchestration.task_states import assigned, serving, succeeded, wanted
from proto import objects_pb2 as objects

STARTED_STATES = (objects.TASK_STATE_RUNNING, objects.TASK_STATE_EXITED)

FindService = Callable[[str], objects.Service | None]
TasksOf = Callable[[str], Sequence[objects.Task]]


def waits_for(service: objects.Service, find: FindService, tasks_of: TasksOf) -> str | None:
    """None where its tasks may be scheduled; else why not, naming the service waited for.

    `find` gives a service of the same app by name, `tasks_of` the tasks of a service id. A service that has
    had a task on a host is never held back again: when a dependency fails later, its dependents stay up.
    """
    if not service.spec.depends_on or any(assigned(task) for task in tasks_of(service.meta.id)):
        return None
    for dependency in service.spec.depends_on:
        other = find(dependency.service)
        if other is None or other.removing:
            continue  # taken out of the app: nothing to wait for
        reason = _reason(dependency, other, tasks_of(other.meta.id))
        if reason is not None:
            return reason
    return None


def _reason(dependency: objects.Dependency, other: objects.Service, tasks: Sequence[objects.Task]) -> str | None:
    current = [task for task in tasks if wanted(task)]
    if dependency.condition == objects.Dependency.CONDITION_COMPLETED and is_job(other.spec):
        fresh = [run for run in other.runs if run.generation == other.generation]
        done, state = any(run.outcome == objects.JobRun.OUTCOME_SUCCEEDED for run in fresh), "completed"
    elif dependency.condition == objects.Dependency.CONDITION_COMPLETED:
        # A dependency that runs again and again has completed once one of its past runs has.
        slots = {task.slot for task in tasks if succeeded(task) and task.generation == other.generation}
        done, state = len(slots) >= max(other.spec.replicas, 1), "completed"
    elif dependency.condition == objects.Dependency.CONDITION_HEALTHY:
        done, state = any(serving(task) for task in current), "healthy"
    else:
        done, state = any(task.status.state in STARTED_STATES for task in current), "started"
    if done:
        return None
    zero = " (it has 0 replicas)" if other.spec.replicas == 0 and not follows_hosts(other.spec) else ""
    return f"waits until service {dependency.service} is {state}{zero}"
