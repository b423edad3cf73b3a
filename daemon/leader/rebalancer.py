"""Moves tasks for a better balance, and away from hosts in trouble, one at a time.

Carries out daemon/orchestration/rebalance_course_plan.py and relief_plan.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from daemon.errors import Refused
from daemon.host_conditions import left_since_unix_ms
from daemon.leader.writer import Writer
from daemon.orchestration.move_plan import wanted_at_all
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

if TYPE_CHECKING:
    from daemon.orchestration.rebalance_course_plan import Round

logger = logging.getLogger(__name__)

LOOK_S = 0.5  # whether anything is wanted at all
LOOK_S_MAX = 10.0
RELIEF_MS = 5_000
AT_ONCE_S_MAX = 0.1  # of one look at services; it goes on where it stopped
SHARE_MAX = 0.05  # of the time, spent on looking for moves


class Rebalancer:
    """Of one time in office."""

    def __init__(self, writer: Writer, now_unix_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._now_unix_ms = now_unix_ms
        self._round: Round | None = None
        self._relieved_unix_ms = 0

    async def run(self) -> None:
        """Only cancellation ends it."""
        wait_s = LOOK_S
        while True:
            await trio.sleep(wait_s)
            wait_s = LOOK_S
            await self._relieve()
            if not any(wanted_at_all(cluster) for cluster in self._writer.store.table(objects.Cluster)):
                self._round = None
                continue
            began_s = trio.current_time()
            try:
                again_unix_ms = await self._look()
            except Refused as refused:
                logger.warning("no task was moved: %s", refused.message)
                wait_s = LOOK_S_MAX
            except Exception:
                logger.exception("looking for moves failed")
                wait_s = LOOK_S_MAX
            else:
                took_s = trio.current_time() - began_s
                pause_s = (again_unix_ms - self._now_unix_ms()) / 1000
                wait_s = min(max(LOOK_S, pause_s, took_s / SHARE_MAX), LOOK_S_MAX)

    async def _relieve(self) -> None:
        now = self._now_unix_ms()
        if all(left_since_unix_ms(node) is None for node in self._writer.store.table(objects.Node)):
            return
        if now - self._relieved_unix_ms < RELIEF_MS:
            return
        self._relieved_unix_ms = now
        from daemon.orchestration.relief_plan import plan_relief

        def plan_now(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, None]:
            return plan_relief(store, now_unix_ms, new_id), None

        try:
            await self._writer.commit(plan_now, actor="leader")
        except Refused as refused:
            logger.warning("no task was moved away from a host in trouble: %s", refused.message)
        except Exception:
            logger.exception("looking for tasks on hosts in trouble failed")

    async def _look(self) -> int:
        # Loads NumPy, as the orchestrator does.
        from daemon.orchestration.rebalance_course_plan import Look, Round, plan_rebalancing

        ends_s = trio.current_time() + AT_ONCE_S_MAX

        def plan_now(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> tuple[TransactionBuilder, Look]:
            round_ = self._round or Round()
            look = plan_rebalancing(store, now_unix_ms, new_id, round_, lambda: trio.current_time() > ends_s)
            return look.builder, look

        look, _ = await self._writer.commit(plan_now, actor="leader")
        self._round = look.round
        return look.again_unix_ms
