"""Tasks that share namespaces of others go where those go, and end when those end. Pure.

Where the other task is replaced by a newer one that is ready, so is the task that shares with it: its replacement
joins the newer one, and both older ones stay until that is ready, for a while. Where the other task ends, or is told to
stop all the same, the task is replaced at once: nobody stays in namespaces whose owner has gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.orchestration.budget_plan import draft_refusal
from daemon.orchestration.draft import Draft
from daemon.orchestration.sharing import left, newest_running, owner_service, sharers_of
from daemon.orchestration.task_plan import create_task, stop_task
from daemon.orchestration.task_states import age_key, alive, assigned, ended, serving, settled, succeeded, wanted
from proto import objects_pb2 as objects

GO_OVER_MS_MAX = 30_000  # for a replacement to be ready beside the newer task
TOLD_MS_MAX = 1_000  # from the end of a task to the news of the one that it shared with
KILLED = 137  # as the kernel ends all of a process id namespace with its first process (pid_namespaces(7))


def follow_owners(draft: Draft, service: objects.Service) -> None:
    """All that is due for one service, before the rest is planned for it."""
    joined = [task for task in draft.tasks_of(service.meta.id) if task.shares_with]
    for task in sorted(joined, key=age_key):
        if draft.full:
            return
        if not wanted(task) or _over(task):
            continue
        here = [each for each in draft.tasks_of(service.meta.id) if each.slot == task.slot and wanted(each)]
        like = None if task.generation == service.generation else task
        if why := left(draft, task):
            stop_task(draft, task, why)
            if not any(each.meta.id != task.meta.id and not ended(each) for each in here):
                create_task(draft, service, task.slot, like=like, attempt=task.attempt)
        elif len(here) == 1 and goes_over(draft, task):
            create_task(draft, service, task.slot, like=like)


def goes_over(draft: Draft, task: objects.Task) -> bool:
    """Whether a newer task has taken the place of the one that it shares with, so that its own is beside that. Not in a
    blue/green change, both sides of which stay as they are."""
    owner = owner_service(draft, task) if task.shares_with and alive(task) else None
    if owner is None or owner.HasField("traffic"):
        return False
    there = newest_running(each for each in draft.tasks_of(owner.meta.id) if each.slot == task.slot)
    return there is not None and there.meta.id != task.shares_with and settled(there, draft.now_unix_ms)


def kept_for_sharers(
    draft: Draft, older: Sequence[objects.Task], newest: objects.Task, nodes: Mapping[str, objects.Node]
) -> list[objects.Task]:
    """Those of `older`, which `newest` has replaced, that stay until the tasks that share with them have gone over.
    Updates end that after a while, and what is replaced by its like does where budgets allow it."""
    return [task for task in older if not ended(task) and _is_kept(draft, task, newest, nodes)]


def _is_kept(draft: Draft, task: objects.Task, newest: objects.Task, nodes: Mapping[str, objects.Node]) -> bool:
    for service, sharer in sharers_of(draft, task):
        if not serving(sharer) or not goes_over(draft, sharer):
            continue
        tasks = draft.tasks_of(service.meta.id)
        others = [
            each for each in tasks if each.slot == sharer.slot and wanted(each) and each.meta.id != sharer.meta.id
        ]
        if not others:
            return True  # it is made at once
        last = max(others, key=age_key)
        until_unix_ms = last.meta.created_unix_ms + GO_OVER_MS_MAX
        if not ended(last) and not last.attempt and until_unix_ms > draft.now_unix_ms:
            draft.wake_at(until_unix_ms)
            return True
        if newest.generation == task.generation and draft_refusal(draft, sharer, nodes):
            return True
    return False


def may_have_ended_with_owner(draft: Draft, task: objects.Task) -> bool:
    """Whether it is too early to say that a task has failed by itself: one whose process ids are another's ends before
    that one does, and so is told of before it."""
    if not task.shares_with or task.status.state != objects.TASK_STATE_FAILED or task.status.out_of_memory:
        return False
    if task.status.exit_code not in (0, KILLED) or left(draft, task):
        return False
    until_unix_ms = task.meta.updated_unix_ms + TOLD_MS_MAX
    if until_unix_ms <= draft.now_unix_ms:
        return False
    draft.wake_at(until_unix_ms)
    return True


def _over(task: objects.Task) -> bool:
    """It has ended, and is not to be followed by another whatever ended it; or it is not on a host as yet."""
    if not assigned(task) or succeeded(task):
        return True
    return ended(task) and task.spec.restart.condition == objects.RestartPolicy.CONDITION_NONE
