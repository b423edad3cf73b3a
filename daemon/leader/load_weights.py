"""Keeps the weights of services that are balanced by load, with at most one commit every few seconds for all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from daemon.errors import Refused
from daemon.leader.load_weights_plan import plan_weights
from daemon.leader.writer import Writer
from proto.host_pb2 import TaskLoad

logger = logging.getLogger(__name__)

INTERVAL_S = 3.0
FRESH_S_MAX = 10.0  # older loads do not count
KEPT_S_MAX = 60.0  # for those who take older ones
LOADS_MAX = 100_000


class Loads:
    """The newest load of every task, as hosts report them; in memory only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loads: dict[str, tuple[float, TaskLoad]] = {}

    def take(self, loads: Iterable[TaskLoad]) -> None:
        """What is too much is left out."""
        now_s = self._clock()
        for load in loads:
            if load.task_id in self._loads or len(self._loads) < LOADS_MAX:
                self._loads[load.task_id] = (now_s, load)

    def fresh(self, within_s: float = FRESH_S_MAX) -> dict[str, TaskLoad]:
        """By task, those that are not older; forgets those that are older than KEPT_S_MAX."""
        now_s = self._clock()
        self._loads = {task_id: known for task_id, known in self._loads.items() if known[0] >= now_s - KEPT_S_MAX}
        return {task_id: load for task_id, (at_s, load) in self._loads.items() if at_s >= now_s - within_s}


async def keep_load_weights(writer: Writer, loads: Loads) -> None:
    """Until cancelled."""
    while True:
        await trio.sleep(INTERVAL_S)
        if not loads.fresh():
            continue
        try:
            await writer.commit(lambda store, _, __: (plan_weights(store, loads.fresh()), None), actor="leader")
        except Refused as refused:
            logger.warning("weights by load were not committed: %s", refused.message)
