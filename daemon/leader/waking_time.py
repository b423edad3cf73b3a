"""Time that passes only while this process gets to run, for judging the silence of others."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

TICK_S = 0.1
STEP_S_MAX = 0.5  # what is longer between two ticks this process has slept through


class WakingTime:
    """Seconds, from no particular start. Without a processor for some seconds a leader hears nobody; counted as
    theirs, that silence would take down every host at once, and their tasks with them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked_s = self._passed_s = clock()

    def now(self) -> float:
        return self._passed_s + min(self._clock() - self._ticked_s, STEP_S_MAX)

    def tick(self) -> None:
        """Takes note that this process runs."""
        self._passed_s, self._ticked_s = self.now(), self._clock()

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            self.tick()
            await trio.sleep(TICK_S)
