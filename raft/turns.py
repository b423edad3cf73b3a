"""When a member takes its turns: at once where something arrives, and when a timer is due."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Turns:
    """Takes turns for whoever rings, never one within another, and when a timer is due.

    A turn happens where something arrives, which spares every message the way to another task. What such a
    turn raises is raised by `run`.
    """

    def __init__(self, turn: Callable[[], None], pause: Callable[[], float]) -> None:
        """`pause`: seconds until the next turn is due if nobody rings; 0 or less: at once."""
        self._turn, self._pause = turn, pause
        self._under_way = False
        self._failure: Exception | None = None
        self._waiter = trio.lowlevel.ParkingLot()
        self._scope: trio.CancelScope | None = None  # while `run` waits for a timer

    def ring(self) -> None:
        """Something is there: a turn now, unless one is under way, after which `pause` says so."""
        if self._under_way or self._failure is not None:
            return
        try:
            self._take()
            pause = self._pause()
        except Exception as error:
            self._failure = error
            self._waiter.unpark_all()
            return
        if pause <= 0:
            self._waiter.unpark_all()
        elif self._scope is not None and (due := trio.current_time() + pause) < self._scope.deadline:
            # A timer that became later stays, since moving it costs as much as a turn: `run` looks when it fires.
            self._scope.deadline = due

    async def run(self) -> None:
        """Until cancelled, or until a turn raises."""
        due = True
        while self._failure is None:
            if due:
                self._take()
            pause = self._pause()
            if pause <= 0:
                await trio.lowlevel.checkpoint()
                due = True
                continue
            with trio.move_on_after(pause) as self._scope:
                await self._waiter.park()
            self._scope = None
            due = self._failure is None and self._pause() <= 0
        raise self._failure

    def _take(self) -> None:
        self._under_way = True
        try:
            self._turn()
        finally:
            self._under_way = False
