"""Watching a store: batches of changes in order, bounded, with a resync where a reader was too slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import trio
from google.protobuf.message import Message


@dataclass(frozen=True)
class Change:
    """One object before and after; None where it did not or does not exist. Never alter the objects."""

    table: str
    id: str
    before: Message | None
    after: Message | None


@dataclass(frozen=True)
class ChangeBatch:
    """Changes up to `revision`. With `resync` the list is empty and anything may have changed: look again."""

    revision: int
    changes: Sequence[Change] = field(default_factory=tuple)
    resync: bool = False


class Subscription:
    """One watcher. Use it as `async with store.watch() as batches: async for batch in batches:`.

    It holds at most `changes_max` changes; when that is passed everything held is dropped and the next
    batch says resync. Iteration never ends by itself. It belongs to the trio loop of its reader.
    """

    def __init__(self, forget: Callable[[Subscription], None], changes_max: int) -> None:
        self._forget = forget
        self._changes_max = changes_max
        self._batches: deque[ChangeBatch] = deque()
        self._change_count = 0
        self._readers = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ChangeBatch:
        while not self._batches:
            await self._readers.park()
        await trio.lowlevel.checkpoint_if_cancelled()
        batch = self._batches.popleft()
        self._change_count -= len(batch.changes)
        return batch

    def close(self) -> None:
        """Ends the watch; safe to repeat."""
        self._forget(self)
        self._batches.clear()

    def publish(self, batch: ChangeBatch) -> None:
        """Called by the store with every batch, in order."""
        if self._batches and self._batches[0].resync:
            # The reader will look at everything anyway; only the revision it has to reach moves.
            self._batches[0] = ChangeBatch(batch.revision, resync=True)
        elif batch.resync or self._change_count + len(batch.changes) > self._changes_max:
            self._batches.clear()
            self._change_count = 0
            self._batches.append(ChangeBatch(batch.revision, resync=True))
        else:
            self._batches.append(batch)
            self._change_count += len(batch.changes)
        if self._readers:
            self._readers.unpark_all()
