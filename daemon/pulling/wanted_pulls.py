"""The leader pulls what services wait for: carries out daemon/pulling/wanted_plan.py."""

from __future__ import annotations

import logging

import trio

from daemon.api.cluster_context import VoterContext
from daemon.errors import Refused
from daemon.pulling.pulls import ImagePulls, Progress
from daemon.pulling.wanted_plan import Try, next_due, wanted_images

logger = logging.getLogger(__name__)

RELEVANT_TABLES = frozenset({"services", "images", "registries"})
# A deploy by the command line has pulled already; what else comes may be loaded in the next moment.
GRACE_S = 2.0
FAILURE_WAIT_S = 30.0


class WantedPulls:
    """Waits while another host leads."""

    def __init__(self, context: VoterContext, pulls: ImagePulls) -> None:
        self._context = context
        self._pulls = pulls
        self._tries: dict[str, Try] = {}
        self._changed = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                if self._context.leadership.current is None:
                    self._tries.clear()
                    await self._context.leadership.wait_changed()
                    continue
                self._changed = trio.Event()
                wait_s = await self._look()
                with trio.move_on_after(wait_s):
                    await self._changed.wait()
                    await trio.sleep(GRACE_S)

    async def _look(self) -> float:
        """Pulls the next image that is due; seconds until the next look."""
        try:
            wanted = wanted_images(self._context.store)
            self._tries = {name: before for name, before in self._tries.items() if name in wanted}
            name, wait_s = next_due(wanted, self._tries, trio.current_time())
            if name is None:
                return wait_s
            try:
                await self._pulls.pull(name, False, "leader", Progress())
                self._tries.pop(name, None)
            except Refused as refused:
                before = self._tries.get(name)
                if before is None or before.failure != refused.message:
                    logger.warning("image %s cannot be pulled: %s", name, refused.message)
                self._tries[name] = Try.after(before, trio.current_time(), refused.message)
        except Exception:
            logger.exception("looking for images to pull failed")
            return FAILURE_WAIT_S
        return 0.0

    async def _watch(self) -> None:
        async with self._context.store.watch() as batches:
            async for batch in batches:
                tables = {change.table for change in batch.changes}
                if "registries" in tables:
                    self._tries.clear()  # what was refused may be let in now
                if batch.resync or tables & RELEVANT_TABLES:
                    self._changed.set()
