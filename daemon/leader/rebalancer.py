"""Moves tasks for a better balance: carries out daemon/orchestration/rebalance_course_plan.py, one move at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from daemon.errors import Refused
from daemon.leader.writer import Writer
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

logger = logging.getLogger(__name__)

LOOK_S = 0.5  # whether anything is wanted at all
LOOK_S_MAX = 10.0
SHARE_MAX = 0.05  # of the time, spent on looking for moves


async def rebalance(writer: Writer, now_unix_ms: Callable[[], int]) -> None:
    """Runs while this host leads; only cancellation ends it."""
    wait_s = LOOK_S
    while True:
        await trio.sleep(wait_s)
        wait_s = LOOK_S
        if not any(_wanted(cluster) for cluster in writer.store.table(objects.Cluster)):
            continue
        began_s = trio.current_time()
        try:
            again_unix_ms = await _look(writer)
        except Refused as refused:
            logger.warning("no task was moved: %s", refused.message)
            wait_s = LOOK_S_MAX
            continue
        took_s = trio.current_time() - began_s
        wait_s = min(max(LOOK_S, (again_unix_ms - now_unix_ms()) / 1000, took_s / SHARE_MAX), LOOK_S_MAX)


def _wanted(cluster: objects.Cluster) -> bool:
    return cluster.rebalancing.asked or cluster.rebalance.automatic


async def _look(writer: Writer) -> int:
    from daemon.orchestration.rebalance_course_plan import plan_rebalancing  # loads NumPy, as the orchestrator does

    def plan_now(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, int]:
        look = plan_rebalancing(store, now_unix_ms, new_id)
        return look.builder, look.again_unix_ms

    again_unix_ms, _ = await writer.commit(plan_now, actor="leader")
    return again_unix_ms
