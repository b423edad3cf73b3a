"""Making, stopping and forgetting single tasks: the only steps that the orchestrator's planners take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from daemon.orchestration.draft import Draft
from daemon.orchestration.leases import leases_held_by
from daemon.orchestration.own_volumes import spec_of_slot
from daemon.orchestration.task_states import age_key, assigned, ended, gone, wanted
from proto import objects_pb2 as objects

HISTORY_PER_SLOT_MAX = 3
DESIRED_MESSAGE_CHARACTERS_MAX = 300


def create_task(
    draft: Draft,
    service: objects.Service,
    slot: int,
    *,
    like: objects.Task | None = None,
    not_before_unix_ms: int = 0,
    attempt: int = 0,
    message: str = "",
    run: int = 0,
) -> objects.Task:
    """A pending task for a slot: of the service as it is now, or the same again as `like`; of a job, for a run."""
    task = objects.Task(
        app=service.app,
        service_id=service.meta.id,
        service=service.meta.name,
        slot=slot,
        generation=like.generation if like is not None else service.generation,
        spec=like.spec if like is not None else spec_of_slot(service.spec, slot),
        image_digest=like.image_digest if like is not None else service.image_digest,
        desired=objects.DESIRED_STATE_RUNNING,
        status=objects.TaskStatus(state=objects.TASK_STATE_PENDING, message=message),
        not_before_unix_ms=not_before_unix_ms,
        attempt=attempt,
        run=run,
    )
    task.meta.id = draft.new_id()
    task.meta.name = f"{service.meta.name}.{slot}"
    task.meta.tenant = service.meta.tenant
    task.meta.created_unix_ms = draft.now_unix_ms
    return draft.create(task)


def stop_task(draft: Draft, task: objects.Task, why: str) -> None:
    """The task is to end, or gives its slot to another if it has. A pending one is forgotten at once."""
    if not assigned(task):
        draft.delete(task)
    elif wanted(task):
        edited = draft.edit(task)
        edited.desired = objects.DESIRED_STATE_STOPPED
        edited.desired_message = why[:DESIRED_MESSAGE_CHARACTERS_MAX]


def lose_tasks_of_lost_hosts(draft: Draft, tasks: Sequence[objects.Task], nodes: Mapping[str, objects.Node]) -> None:
    """Tasks on a host that is down count as ended, though their containers may still run there; those of a
    host that was removed are gone for good."""
    for task in tasks:
        if not assigned(task):
            continue
        node = nodes.get(task.node_id)
        if node is None:
            if not ended(task):
                mark_lost(draft.edit(task), "its host was removed from the cluster")
            release_task(draft, task)
        elif node.state == objects.NODE_STATE_DOWN and not ended(task):
            mark_lost(draft.edit(task), f"host {node.meta.name} is down")


def mark_lost(task: objects.Task, why: str) -> None:
    """Changes `task` in place."""
    task.status.state = objects.TASK_STATE_LOST
    task.status.ready = False
    task.status.message = why


def release_task(draft: Draft, task: objects.Task) -> None:
    """Nothing of the task is left on any host: its address may be leased again."""
    if not task.address:
        return
    for lease in leases_held_by(draft.store, task.meta.id):
        draft.delete(lease)
    draft.edit(task).address = ""


def forget_tasks(draft: Draft, tasks: list[objects.Task], slots_kept: Collection[int]) -> None:
    """Deletes records of tasks that are over and gone, but for the last of each slot in `slots_kept`."""
    over = [task for task in tasks if ended(task) and gone(task) and not wanted(task)]
    kept: dict[int, int] = {}
    for task in sorted(over, key=age_key, reverse=True):
        count = kept.get(task.slot, 0)
        if task.slot not in slots_kept or count >= HISTORY_PER_SLOT_MAX:
            draft.delete(task)
        else:
            kept[task.slot] = count + 1
