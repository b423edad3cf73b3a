"""The leader's loop: look at the store, plan, commit; again whenever something relevant changed."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import trio

from daemon.errors import Refused
from proto import objects_pb2 as objects
from raft.store import Change, ChangeBatch, Store
from raft.transaction import TransactionBuilder

if TYPE_CHECKING:
    from daemon.orchestration.orchestrator_plan import Plan

logger = logging.getLogger(__name__)

RELEVANT_TABLES = frozenset({"apps", "images", "nodes", "services", "tasks", "tenants", "volumes"})
PASS_INTERVAL_S_MIN = 0.02  # between passes: what changes meanwhile is looked at together
PASS_INTERVAL_S_MAX = 1.0
PASS_SHARE_MAX = 0.1  # of the time, while much changes: the larger the store, the rarer the passes
LOOK_AGAIN_S_MAX = 30.0  # a pass at least this often, whatever was or was not heard
BACK_OFF_S_MIN = 0.1
BACK_OFF_S_MAX = 5.0

PlanNow = Callable[[Store, int, Callable[[], str]], tuple[TransactionBuilder, "Plan"]]


class Commits(Protocol):
    """daemon/leader/writer.py's Writer: plans against the newest state and commits, anew where it conflicts."""

    @property
    def store(self) -> Store: ...

    async def commit(self, plan: PlanNow, actor: str, request_id: str = "") -> tuple[Plan, int]: ...


class Orchestrator:
    """Runs from the start of a leader's time in office (after its read barrier) to its end."""

    def __init__(self, writer: Commits, now_unix_ms: Callable[[], int], new_id: Callable[[], str]) -> None:
        self._writer = writer
        self._now_unix_ms = now_unix_ms
        self._new_id = new_id
        self._changed = trio.Event()

    async def run(self) -> None:
        """A full pass first, then one after each change or at the time that a plan asked for. A pass that
        fails is logged and tried again with back-off; only cancellation ends the loop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            # The scheduler's NumPy takes 20 MB and some tenths of a second to load: only a host that leads pays for
            # it, and nothing else waits meanwhile.
            await trio.to_thread.run_sync(importlib.import_module, "daemon.orchestration.orchestrator_plan")
            back_off_s = BACK_OFF_S_MIN
            while True:
                self._changed = trio.Event()
                began_s = trio.current_time()
                try:
                    wait_s = await self._pass()
                except Refused as refused:  # no majority or too much at once: nothing was changed
                    logger.warning("the plan was not committed: %s", refused.message)
                except Exception:
                    logger.exception("a pass failed; trying again in %.1f s", back_off_s)
                else:
                    back_off_s = BACK_OFF_S_MIN
                    rest_s = (trio.current_time() - began_s) / PASS_SHARE_MAX
                    earliest_s = began_s + min(max(rest_s, PASS_INTERVAL_S_MIN), PASS_INTERVAL_S_MAX)
                    with trio.move_on_after(wait_s):
                        await self._changed.wait()
                    await trio.sleep_until(earliest_s)
                    continue
                await trio.sleep(back_off_s)
                back_off_s = min(back_off_s * 2, BACK_OFF_S_MAX)

    async def _pass(self) -> float:
        """Seconds until the next pass is due, if nothing changes before."""

        from daemon.orchestration.orchestrator_plan import plan  # loaded by `run`

        def plan_now(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, Plan]:
            planned = plan(store, now_unix_ms, new_id)
            return planned.builder, planned

        planned, _ = await self._writer.commit(plan_now, actor="leader")
        if planned.more:
            return 0.0
        if planned.wake_at_unix_ms is None:
            return LOOK_AGAIN_S_MAX
        return min(max(planned.wake_at_unix_ms - self._now_unix_ms(), 0) / 1000, LOOK_AGAIN_S_MAX)

    async def _watch(self) -> None:
        async with self._writer.store.watch() as batches:
            async for batch in batches:
                if _relevant(batch):
                    self._changed.set()


def _relevant(batch: ChangeBatch) -> bool:
    return batch.resync or any(change.table in RELEVANT_TABLES and _matters(change) for change in batch.changes)


def _matters(change: Change) -> bool:
    """Hosts report every step of a start; plans only ask whether a task runs, is ready, has ended or is gone."""
    if change.table != "tasks" or change.before is None or change.after is None:
        return True
    return _gist(cast(objects.Task, change.before)) != _gist(cast(objects.Task, change.after))


def _gist(task: objects.Task) -> tuple[object, ...]:
    running = task.status.state == objects.TASK_STATE_RUNNING
    settled = task.status.state if task.status.state >= objects.TASK_STATE_EXITED else 0
    status = (running, settled, task.status.ready, task.status.health)
    return (task.desired, task.node_id, bool(task.address), task.generation, *status)
