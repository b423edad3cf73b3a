"""What tasks wrote, from their hosts to an operator: as it comes, or all that there is in the order of its times."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import trio

from daemon import lookup
from daemon.api.cluster_context import VoterContext
from daemon.api.grpc_errors import refusal
from daemon.api.grpc_service import Send
from daemon.errors import Kind, Refused
from daemon.orchestration.task_states import ended
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.log_place import LogPlace
from raft.store import Store

logger = logging.getLogger(__name__)

TASKS_MAX = 200
FOLLOW_LOOK_S = 1.0
OUTAGE_SAID_S = 5.0  # a daemon that is only restarted is not worth a word
ANSWER_S_MAX = 10.0
PassOn = Callable[[host.LogChunk], Awaitable[None]]


class LogRelay:
    """One request for logs; runs on the leader."""

    def __init__(self, context: VoterContext, store: Store, request: control.LogsRequest, send: Send) -> None:
        self._context = context
        self._store = store
        self._request = request
        self._targets = [each for each in (request.target, *request.targets) if each]
        self._send = send
        self._lock = trio.Lock()

    async def run(self) -> None:
        """Until all was sent. Raises Refused where a target is nothing."""
        tasks = tasks_of(self._store, self._targets)[-TASKS_MAX:]
        if self._request.follow:
            await self._follow(tasks)
        else:
            await self._merge(tasks)

    async def _follow(self, tasks: list[objects.Task]) -> None:
        following: set[str] = set()
        tail_lines = self._request.tail_lines
        async with trio.open_nursery() as nursery:
            while True:
                for task in tasks:
                    if task.meta.id not in following:
                        following.add(task.meta.id)
                        nursery.start_soon(self._log, task, tail_lines, self._pass_on)
                if 0 < self._request.until_unix_ms < time.time_ns() // 1_000_000:
                    return
                await trio.sleep(FOLLOW_LOOK_S)
                self._context.leading()
                try:  # tasks that replace the first ones are followed too, each from its first line
                    tasks = tasks_of(self._store, self._targets)[-TASKS_MAX:]
                except Refused:
                    return
                tail_lines = -1

    async def _pass_on(self, chunk: host.LogChunk) -> None:
        async with self._lock:
            await self._send(chunk)

    async def _merge(self, tasks: list[objects.Task]) -> None:
        sources: list[_Source] = []
        async with trio.open_nursery() as nursery:
            for task in tasks:
                send, receive = trio.open_memory_channel[host.LogChunk](0)
                nursery.start_soon(self._feed, task, send)
                sources.append(_Source(task, receive))
            for source in sources:
                await source.fill()
            while sources := [source for source in sources if source.chunk is not None]:
                first = min(sources, key=_Source.next_ns)
                until_ns = min((each.next_ns() for each in sources if each is not first), default=math.inf)
                await self._send(first.take(until_ns))
                await first.fill()
            nursery.cancel_scope.cancel()

    async def _feed(self, task: objects.Task, channel: trio.MemorySendChannel[host.LogChunk]) -> None:
        async with channel:
            await self._log(task, self._request.tail_lines, channel.send)

    async def _log(self, task: objects.Task, tail_lines: int, pass_on: PassOn) -> None:
        """Until the log ends; where it is followed, over restarts of its host's daemon."""
        request, place = self._request, LogPlace()
        ask = host.ReadLogRequest(
            task_id=task.meta.id,
            follow=request.follow,
            tail_lines=tail_lines,
            since_unix_ms=request.since_unix_ms,
            until_unix_ms=request.until_unix_ms,
            stream=request.stream,
        )
        lost_s, said = 0.0, False
        while True:
            refused, heard = await self._read(task, ask, place, pass_on)
            if refused is None:
                return
            logger.info("log of task %s: %s", task.meta.name, refused.message)
            known = self._store.get(objects.Task, task.meta.id)
            if not request.follow or refused.kind is not Kind.UNAVAILABLE or known is None or ended(known):
                await pass_on(_note(task, refused.message))
                return
            if heard:
                lost_s, said = 0.0, False
            elif lost_s >= OUTAGE_SAID_S and not said:
                await pass_on(_note(task, f"{refused.message}; the log goes on when its host answers again"))
                said = True
            await trio.sleep(FOLLOW_LOOK_S)
            lost_s += FOLLOW_LOOK_S
            if (since_unix_ms := place.begin_again()) is not None:
                ask.tail_lines, ask.since_unix_ms = -1, max(since_unix_ms, request.since_unix_ms)

    async def _read(
        self, task: objects.Task, ask: host.ReadLogRequest, place: LogPlace, pass_on: PassOn
    ) -> tuple[Refused | None, bool]:
        """Why it ended before its end, and whether there was an answer."""
        heard, stream = False, None
        try:
            if task.spec.container.logging.driver == objects.Logging.DRIVER_NONE:
                message = "nothing is kept of what it writes: its service's logging has the driver none"
                raise Refused(message, Kind.NOT_FOUND)
            node = self._context.node(task.node_id)
            stream = self._context.host(node).ReadLog(ask)
            calling: Any = stream
            while (chunk := await call(calling.read())) is not grpc.aio.EOF:
                heard = True
                lines = [line for line in chunk.lines if place.is_new(line)]
                if lines:
                    named = host.LogChunk(task_id=task.meta.id, task_name=task.meta.name, lines=lines)
                    named.app, named.node = task.app, node.meta.name
                    await pass_on(named)
        except Refused as refused:
            return refused, heard
        except grpc.aio.AioRpcError as error:
            return refusal(error, "the log ends here"), heard
        except ConnectionAbortedError as error:
            return Refused(f"the log ends here: {error}", Kind.UNAVAILABLE), heard
        finally:
            if stream is not None:
                stream.cancel()
        return None, heard


class _Source:
    """The lines of one task, the next ones at hand."""

    def __init__(self, task: objects.Task, channel: trio.MemoryReceiveChannel[host.LogChunk]) -> None:
        self._task = task
        self._channel = channel
        self._place = 0
        self.chunk: host.LogChunk | None = None

    def next_ns(self) -> float:
        assert self.chunk is not None
        return self.chunk.lines[self._place].unix_ns or math.inf  # words of ours come last

    async def fill(self) -> None:
        """The chunk is None when no more comes."""
        if self.chunk is not None and self._place < len(self.chunk.lines):
            return
        self.chunk, self._place = None, 0
        with trio.move_on_after(ANSWER_S_MAX) as waiting:
            try:
                self.chunk = await self._channel.receive()
            except trio.EndOfChannel:
                return
        if waiting.cancelled_caught:
            self._channel.close()
            self._channel = _closed()
            self.chunk = _note(self._task, f"the log ends here: its host has not answered for {ANSWER_S_MAX:.0f} s")

    def take(self, until_ns: float) -> host.LogChunk:
        """The lines up to that time, at least one."""
        assert self.chunk is not None
        lines = self.chunk.lines
        end = self._place + 1
        while end < len(lines) and lines[end].unix_ns <= until_ns:
            end += 1
        taken = host.LogChunk(lines=lines[self._place : end])
        for name in ("task_id", "task_name", "app", "node"):
            setattr(taken, name, getattr(self.chunk, name))
        self._place = end
        return taken


def _closed() -> trio.MemoryReceiveChannel[host.LogChunk]:
    send, receive = trio.open_memory_channel[host.LogChunk](0)
    send.close()
    return receive


def tasks_of(store: Store, targets: Sequence[str]) -> list[objects.Task]:
    """Those of tasks, services and apps that have had a host, each once, the oldest first. Raises Refused."""
    found: dict[str, objects.Task] = {}
    for target in targets:
        try:
            tasks = lookup.find_tasks(store, target)
        except Refused:
            if not any(app.meta.name == target for app in store.table(objects.App)):
                raise
            tasks = [task for task in store.table(objects.Task) if task.app == target]
        found.update((task.meta.id, task) for task in tasks if task.node_id)
    return sorted(found.values(), key=lambda task: task.meta.created_unix_ms)


def _note(task: objects.Task, words: str) -> host.LogChunk:
    """To the operator, where the log should be: a line without a time."""
    line = host.LogLine(standard_error=True, text=f"fairway: {words}".encode())
    return host.LogChunk(task_id=task.meta.id, task_name=task.meta.name, app=task.app, lines=[line])
