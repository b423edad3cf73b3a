"""From the raft thread to the main thread: changes, answers and status, in order and bounded.

The raft thread ships after every turn; one call in the main thread takes all that has gathered. Objects are
shared, nobody alters them. Where the main thread does not keep up, the changes that wait are replaced by one
listing of the whole store, so what waits is never more than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from raft.errors import NotServed
from raft.requests import Answer, Outcome
from raft.store import Store
from raft.table import Table
from raft.watch import ChangeBatch


class Ticket:
    """Waits in the main thread for the answer to one request, until `deadline` (trio's time), then for `late`."""

    __slots__ = ("answered", "deadline", "late", "outcome")

    def __init__(self, deadline: float, late: NotServed) -> None:
        self.deadline, self.late = deadline, late
        self.outcome: Outcome = None
        self.answered = trio.Event()


@dataclass
class _Parcel:
    listing: tuple[int, list[Table[Any]]] | None = None  # (revision, everything) before the batches
    batches: list[ChangeBatch] = field(default_factory=list)
    change_count: int = 0
    answers: list[Answer] = field(default_factory=list)


class Handover:
    """Made in the main thread; `ship` is for the raft thread, everything else happens in the main one."""

    def __init__(self, store: Store, changes_max: int, told: Callable[[], None]) -> None:
        self._store = store
        self._changes_max = changes_max
        self._told = told
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._parcel: _Parcel | None = None

    def ship(
        self, source: Store, batches: Sequence[ChangeBatch], answers: Sequence[Answer], whole: bool = False
    ) -> None:
        """Hands over a turn's changes and answers; with `whole` all of `source` in place of the changes."""
        with self._lock:
            first = self._parcel is None
            parcel = self._parcel = self._parcel or _Parcel()
            added = sum(len(batch.changes) for batch in batches)
            if whole or parcel.change_count + added > self._changes_max:
                parcel.listing = (source.revision, source.tables())
                parcel.batches.clear()
                parcel.change_count = 0
            else:
                parcel.batches.extend(batches)
                parcel.change_count += added
            parcel.answers.extend(answers)
        if first:
            try:
                self._token.run_sync_soon(self._take)
            except trio.RunFinishedError:
                return  # the daemon has gone; nobody waits any more

    def _take(self) -> None:
        with self._lock:
            parcel, self._parcel = self._parcel, None
        if parcel is None:
            return
        if parcel.listing is not None:
            revision, tables = parcel.listing
            self._store.take_over(tables, (), revision)
        for batch in parcel.batches:
            self._store.absorb(batch.changes, batch.revision)
        for ticket, outcome in parcel.answers:
            assert isinstance(ticket, Ticket)
            ticket.outcome = outcome
            ticket.answered.set()
        self._told()
