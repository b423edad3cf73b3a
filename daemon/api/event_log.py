"""What happened lately, for `fairway events`: derived by every voter from the changes of the store.

Bounded and in memory only: it begins when the daemon starts.
"""

from __future__ import annotations

from collections import deque

import trio

from daemon.api.events_plan import events_of
from proto import objects_pb2 as objects
from raft.store import Store

EVENTS_MAX = 10_000


class EventLog:
    """A ring of events; readers keep a position and see a gap as a jump of it."""

    def __init__(self) -> None:
        self._events: deque[objects.Event] = deque(maxlen=EVENTS_MAX)
        self._count = 0  # of all events ever
        self.changed = trio.Event()

    async def run(self, store: Store) -> None:
        """Follows the store until cancelled."""
        async with store.watch() as batches:
            async for batch in batches:
                self.add(events_of(batch))

    def add(self, events: list[objects.Event]) -> None:
        """Takes events in and wakes who waits for `changed`."""
        if not events:
            return
        self._events.extend(events)
        self._count += len(events)
        self.changed.set()
        self.changed = trio.Event()

    def after(self, position: int) -> tuple[list[objects.Event], int]:
        """(events that came after `position`, the position after them); 0 is before all."""
        new = min(self._count - position, len(self._events))
        events = list(self._events)[len(self._events) - new :] if new else []
        return events, self._count
