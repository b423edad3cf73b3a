"""The first step of a rollout: tasks that are right already are taken over, and traffic stays where it is. Pure.

A version may be what an earlier one was (a rollback, or an older file deployed again). Tasks of that earlier one which
still run are then tasks of the new one: only their generation is written anew. So a rollback in the midst of an update
replaces what had been replaced and no more, and one after a blue/green switch finds all its tasks ready.
"""

from __future__ import annotations

from daemon.deploying.revisions_plan import same_tasks
from daemon.orchestration.draft import Draft
from daemon.orchestration.task_plan import stop_task
from daemon.orchestration.task_states import alive, serving, wanted
from daemon.orchestration.traffic import gets_traffic
from proto import objects_pb2 as objects


def begin_rollout(draft: Draft, service: objects.Service) -> objects.Service:
    """The service as it is then; the same where nothing begins. Who got traffic before goes on to get it."""
    if service.rollout.generation != service.generation or service.rollout.begun:
        return service
    tasks = [task for task in draft.tasks_of(service.meta.id) if wanted(task)]
    served = {task.meta.id for task in tasks if serving(task) and gets_traffic(service, task)}
    had_split = service.HasField("traffic")
    outside = {task.meta.id for task in tasks if not gets_traffic(service, task)}
    present: list[objects.Task] = []
    older: list[objects.Task] = []
    for task in tasks:
        if task.generation != service.generation and alive(task) and same_tasks(task, service):
            draft.edit(task).generation = service.generation
            present.append(task)
        else:
            (present if task.generation == service.generation else older).append(task)
    for task in older:
        if task.meta.id in outside:  # one side of a blue/green change that something else has overtaken
            stop_task(draft, task, "its version is not wanted any more")
    started = draft.edit(service)
    started.rollout.begun = True
    blue_green = service.spec.rollout.strategy == objects.RolloutSpec.STRATEGY_BLUE_GREEN
    if older and (blue_green or had_split):
        switched = any(task.meta.id in served for task in present)
        started.traffic.CopyFrom(
            objects.TrafficSplit(
                generation=service.generation,
                switched=switched,
                switched_unix_ms=draft.now_unix_ms if switched else 0,
            )
        )
    else:
        started.ClearField("traffic")
    return started
