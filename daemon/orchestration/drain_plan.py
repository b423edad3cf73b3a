"""The last tasks of a draining host: those that a volume ties to it, or that no host with one already may take. Pure.

They cannot be replaced elsewhere first, so they are stopped when every task that can move has been moved, as far as
the disruption budgets of their services allow;
their successors stay pending, and say why, until the host takes tasks again.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.orchestration.budget_plan import may_disrupt
from daemon.orchestration.draft import Draft
from daemon.orchestration.host_ports import host_ports
from daemon.orchestration.scheduler_words import DEVICES_HELD, PER_NODE_MAX, PORT_TAKEN
from daemon.orchestration.task_plan import create_task, stop_task
from daemon.orchestration.task_states import age_key, alive, assigned, named_volumes
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
        tied = (named_volumes(task.spec) or task.shares_with or _others_have_theirs(draft, task) for task in tasks)
        if not all(tied):
            continue
        for task in sorted(tasks, key=age_key):
            service = draft.get(objects.Service, task.service_id)
            if service is None or service.removing or draft.full or not may_disrupt(draft, task, nodes):
                continue
            stop_task(draft, task, f"drain of {node.meta.name}")
            others = [other for other in draft.tasks_of(service.meta.id) if other.slot == task.slot and alive(other)]
            if not others:
                like = None if task.generation == service.generation else task
                create_task(draft, service, task.slot, like=like)


def _others_have_theirs(draft: Draft, task: objects.Task) -> bool:
    """Its successor waits for a host without the port that it publishes, with devices left, or with fewer tasks of its
    service: as long as the others run, there is none."""
    others = (other for other in draft.tasks_of(task.service_id) if other.slot == task.slot and alive(other))
    waiting = [other.status.message for other in others if not assigned(other)]
    reasons = [PER_NODE_MAX]
    reasons += [PORT_TAKEN] if host_ports(task.spec) else []
    reasons += [DEVICES_HELD] if task.devices else []
    return any(words in message for message in waiting for words in reasons)
