"""A task that takes over from another one of its slot for a better balance: begun, and given up where it fails. Pure.

It is placed on the one host that it is for, and is a replacement like any other then: the older task is stopped when it
is ready. While the older one serves, a move fails without harm; its service is then left alone for a while
(rebalance_plan.py), so that the same move is not tried again and again.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon.orchestration.draft import Draft
from daemon.orchestration.quantities import duration_text
from daemon.orchestration.restart_plan import ending
from daemon.orchestration.task_plan import create_task, stop_task
from daemon.orchestration.task_states import assigned, ended, serving
from proto import objects_pb2 as objects

READY_MS_MAX = 300_000  # after which a move is given up
GIVEN_UP_MAX = 100


def wanted_at_all(cluster: objects.Cluster) -> bool:
    """A move was asked for, or may be begun by itself."""
    return cluster.rebalancing.asked or cluster.rebalance.automatic


def begin_move(draft: Draft, service: objects.Service, slot: int, target: objects.Node, why: str) -> objects.Task:
    """The task that is to take over, on that host or not at all."""
    task = create_task(draft, service, slot)
    task.move.node_id, task.move.why = target.meta.id, why
    return task


def moves(task: objects.Task) -> bool:
    """It is on its way to take over, or has done so."""
    return task.HasField("move")


def gave_up(draft: Draft, newest: objects.Task, older: Sequence[objects.Task]) -> bool:
    """Stops a task that moves and cannot take over, while an older one serves; whether it did."""
    if not moves(newest) or serving(newest) or not any(serving(task) for task in older):
        return False
    late_unix_ms = newest.meta.created_unix_ms + READY_MS_MAX
    if ended(newest):
        why = ending(newest)
    elif not assigned(newest) and newest.status.message:
        why = newest.status.message
    elif late_unix_ms <= draft.now_unix_ms:
        why = f"it was not ready within {duration_text(READY_MS_MAX)}"
    else:
        draft.wake_at(late_unix_ms)
        return False
    stop_task(draft, newest, f"it does not move: {why}")
    for cluster in draft.store.table(objects.Cluster):
        known = draft.edit(cluster).rebalancing.given_up
        kept = [each for each in known if each.service_id != newest.service_id][-GIVEN_UP_MAX + 1 :]
        del known[:]
        known.extend(kept)
        known.add(service_id=newest.service_id, unix_ms=draft.now_unix_ms)
    return True
