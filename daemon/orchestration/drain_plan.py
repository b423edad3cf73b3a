"""The last tasks of a draining host: those that a volume ties to it. Pure.

They cannot be replaced elsewhere first, so they are stopped when every task that can move has been moved;
their successors stay pending, and say why, until the host takes tasks again.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.orchestration.draft import Draft
from daemon.orchestration.task_plan import create_task, stop_task
from daemon.orchestration.task_states import age_key, alive, named_volumes
from proto import objects_pb2 as objects


def stop_tied_tasks(draft: Draft, nodes: Mapping[str, objects.Node]) -> None:
    """For each draining host on which nothing else is wanted any more."""
    for node in nodes.values():
        if node.availability != objects.AVAILABILITY_DRAINING or node.state == objects.NODE_STATE_DOWN:
            continue
        tasks = []
        for stored in draft.store.table(objects.Task).by("node", node.meta.id):
            task = draft.get(objects.Task, stored.meta.id)
            if task is not None and alive(task):
                tasks.append(task)
        if any(not named_volumes(task.spec) for task in tasks):
            continue
        for task in sorted(tasks, key=age_key):
            service = draft.get(objects.Service, task.service_id)
            if service is None or service.removing or draft.full:
                continue
            stop_task(draft, task, f"drain of {node.meta.name}")
            others = [other for other in draft.tasks_of(service.meta.id) if other.slot == task.slot and alive(other)]
            if not others:
                like = None if task.generation == service.generation else task
                create_task(draft, service, task.slot, like=like)
