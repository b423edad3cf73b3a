"""One pass of planning: the store as it is, with the changes of the plan laid over it.

Planners read and change through the draft, so that a later step of the same pass sees what an earlier one
decided; each object ends up in the transaction at most once, and only if it really differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from daemon.orchestration.leases import LeasePool
from proto import objects_pb2 as objects
from raft.schema import meta_of
from raft.store import Store
from raft.transaction import TransactionBuilder

M = TypeVar("M", bound=Message)

CHANGES_MAX = 1_000  # objects that one pass changes; what is left is the next pass's


class Draft:
    """Not for two threads. `now_unix_ms` is the time of the whole pass, `new_id` gives fresh ids."""

    def __init__(self, store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> None:
        self.store = store
        self.now_unix_ms = now_unix_ms
        self.new_id = new_id
        self.leases = LeasePool(store)
        self.wake_at_unix_ms: int | None = None
        self._changed: dict[tuple[str, str], Message | None] = {}
        self._created_tasks: dict[str, list[str]] = {}

    @property
    def full(self) -> bool:
        """No further change should be begun in this pass."""
        return len(self._changed) >= CHANGES_MAX

    def wake_at(self, unix_ms: int) -> None:
        """Asks for another pass at that time, if nothing happens before."""
        if self.wake_at_unix_ms is None or unix_ms < self.wake_at_unix_ms:
            self.wake_at_unix_ms = unix_ms

    def get(self, message: type[M], identifier: str) -> M | None:
        """As the plan leaves it so far. Read only: use `edit` to change it."""
        key = (message.__name__, identifier)
        if key in self._changed:
            laid_over: Any = self._changed[key]
            return None if laid_over is None else laid_over
        return self.store.get(message, identifier)

    def edit(self, stored: M) -> M:
        """The object that the plan may change in place; the same one each time."""
        key = (type(stored).__name__, meta_of(stored).id)
        known: Any = self._changed.get(key)
        if known is None:
            known = type(stored)()
            known.CopyFrom(stored)
            self._changed[key] = known
        found: M = known
        return found

    def create(self, fresh: M) -> M:
        """Adds a new object; its id must be set. It may still be changed in place."""
        self._changed[(type(fresh).__name__, meta_of(fresh).id)] = fresh
        if isinstance(fresh, objects.Task):
            self._created_tasks.setdefault(fresh.service_id, []).append(fresh.meta.id)
        return fresh

    def update(self, changed: Message) -> None:
        """Lays a changed copy over the object that it was made of."""
        self._changed[(type(changed).__name__, meta_of(changed).id)] = changed

    def delete(self, stored: Message) -> None:
        self._changed[(type(stored).__name__, meta_of(stored).id)] = None

    def tasks_of(self, service_id: str) -> list[objects.Task]:
        """All tasks of a service as the plan leaves them so far, in no order."""
        stored = self.store.table(objects.Task).by("service", service_id)
        found = list(self._overlaid(stored))
        for identifier in self._created_tasks.get(service_id, ()):
            task = self.get(objects.Task, identifier)
            if task is not None:
                found.append(task)
        return found

    def tasks(self) -> Iterator[objects.Task]:
        """All tasks of the cluster as the plan leaves them so far."""
        yield from self._overlaid(self.store.table(objects.Task))
        for service_id in self._created_tasks:
            for identifier in self._created_tasks[service_id]:
                task = self.get(objects.Task, identifier)
                if task is not None:
                    yield task

    def volumes(self) -> Iterator[objects.Volume]:
        """All volumes of the cluster as the plan leaves them so far."""
        for stored in self.store.table(objects.Volume):
            volume = self.get(objects.Volume, stored.meta.id)
            if volume is not None:
                yield volume
        for after in self._changed.values():
            if isinstance(after, objects.Volume) and self.store.get(objects.Volume, after.meta.id) is None:
                yield after

    def builder(self) -> TransactionBuilder:
        """The transaction of everything that differs from the store."""
        builder = TransactionBuilder()
        for (_, identifier), after in self._changed.items():
            if after is None:
                continue
            before = self.store.get(type(after), identifier)
            if before is None:
                builder.create(after)
            elif before != after:
                builder.update(after)
        tables: dict[str, type[Message]] = {cls.__name__: cls for cls in _STORED}
        for (name, identifier), after in self._changed.items():
            before = self.store.get(tables[name], identifier) if after is None else None
            if before is not None:
                builder.delete(before)
        return builder

    def _overlaid(self, stored: Any) -> Iterator[objects.Task]:
        for task in stored:
            key = ("Task", task.meta.id)
            if key in self._changed:
                laid_over: Any = self._changed[key]
                if laid_over is not None:
                    yield laid_over
            else:
                yield task


_STORED: tuple[type[Message], ...] = (
    objects.Node,
    objects.App,
    objects.Service,
    objects.Task,
    objects.Network,
    objects.Volume,
    objects.Lease,
    objects.TaskFile,
)
