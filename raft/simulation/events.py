"""The simulation's time: what happens when, in one order that only the seed decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.005  # how often a condition is looked at


class Events:
    """`now` in seconds since the start of the run."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Calls `action` at `when`, or next if that has passed; in order of the calls where times are equal."""
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def run_until(self, end: float, condition: Callable[[], bool] | None = None) -> bool:
        """Goes on to `end`, or until `condition` holds (then True)."""
        queue, look_at = self._queue, self.now
        while queue and queue[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(queue)
            action(*arguments)
            if condition is not None and self.now >= look_at:
                if condition():
                    return True
                look_at = self.now + LOOK_SECONDS
        self.now = end
        return condition is not None and condition()
