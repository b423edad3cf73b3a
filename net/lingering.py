"""Connections to tasks whose endpoints vanished without having been withdrawn first: they are not cut at once.

So it is where a host is not heard of any more. Often only its daemon is down, being restarted, while its tasks go on
answering what they were asked: cut at once, every request under way would fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from net.desired_changes import Change, DesiredIndex

LINGER_SECONDS = 2.0


class Lingering:
    """Addresses that get no new connections and keep those they have for LINGER_SECONDS."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._due_seconds: dict[str, float] = {}
        self._more = trio.Event()

    def hold(self, change: Change, index: DesiredIndex) -> Change:
        """`change`, to which `index` was just advanced, with those gone that another task has by now."""
        due_seconds = self._clock() + LINGER_SECONDS
        self._due_seconds.update(dict.fromkeys(change.vanished, due_seconds))
        reused = sorted(index.reused(self._due_seconds, change))
        for address in reused:
            del self._due_seconds[address]
        if change.vanished:
            self._more.set()
        return replace(change, gone=change.gone + reused) if reused else change

    async def wait(self) -> None:
        """Returns when the time of some is over."""
        while min(self._due_seconds.values(), default=float("inf")) > self._clock():
            self._more = trio.Event()
            with trio.move_on_at(min(self._due_seconds.values(), default=float("inf"))):
                await self._more.wait()

    def take(self) -> Change:
        """Those whose time is over: they are gone. Apply it before another change comes."""
        now_seconds = self._clock()
        over = sorted(address for address, due in self._due_seconds.items() if due <= now_seconds)
        for address in over:
            del self._due_seconds[address]
        return Change(gone=over)
