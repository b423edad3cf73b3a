"""Hands containerd's events to subscribers; who cannot keep up is told to look again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from weakref import WeakSet

import trio

from proto import containerd_pb2 as api
from runtime.model import ContainerEvent, EventKind

QUEUE_EVENTS_MAX = 256


def decode(envelope: api.Envelope) -> ContainerEvent | None:
    """The event for people who watch containers; None for ends of processes that exec made."""
    if envelope.topic == "/tasks/exit":
        ended = api.TaskExit.FromString(envelope.event.value)
        if ended.id and ended.id != ended.container_id:
            return None
        unix_ms = ended.exited_at.ToMilliseconds()
        return ContainerEvent(EventKind.EXIT, ended.container_id, ended.exit_status, unix_ms)
    if envelope.topic == "/tasks/oom":
        killed = api.TaskOOM.FromString(envelope.event.value)
        return ContainerEvent(EventKind.OOM, killed.container_id, 0, envelope.timestamp.ToMilliseconds())
    return None


class Subscription:
    """An async iterator of events. The first is RESYNC; after an overflow of the queue it begins again so."""

    def __init__(self) -> None:
        self._queue: list[ContainerEvent] = [ContainerEvent(EventKind.RESYNC)]
        self._arrived = trio.Event()
        self._arrived.set()

    def push(self, event: ContainerEvent) -> None:
        if len(self._queue) >= QUEUE_EVENTS_MAX or event.kind is EventKind.RESYNC:
            self._queue = [ContainerEvent(EventKind.RESYNC)]
        else:
            self._queue.append(event)
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[ContainerEvent]:
        return self

    async def __anext__(self) -> ContainerEvent:
        while not self._queue:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._queue.pop(0)


class EventFan:
    """Holds subscriptions weakly: one that its reader let go of gets no more events."""

    def __init__(self) -> None:
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def push(self, event: ContainerEvent) -> None:
        for subscription in list(self._subscriptions):
            subscription.push(event)
