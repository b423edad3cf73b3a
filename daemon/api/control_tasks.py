"""The control API's methods about tasks: listing, watching, logs and processes in them."""

from __future__ import annotations

import logging
import time
from typing import Any

import grpc
import trio

from daemon import lookup
from daemon.api import control_views as views
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.exec_relay import relay_exec
from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from daemon.orchestration.task_states import ended
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto import why_pb2
from proto.grpc_trio import call
from raft.store import Store

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S_MIN = 0.1
LOG_TASKS_MAX = 200
FOLLOW_LOOK_S = 1.0


class ControlTasks:
    """Runs on the leader."""

    def __init__(self, context: VoterContext) -> None:
        self._context = context

    async def list_tasks(self, request: control.ListTasksRequest, _caller: Caller) -> control.ListTasksReply:
        return views.list_tasks(await self._context.current_store(), request)

    async def why(self, request: why_pb2.WhyRequest, _caller: Caller) -> why_pb2.WhyReply:
        from daemon.orchestration.why_plan import why  # loads the scheduler, as being the leader does

        return why(await self._context.current_store(), request, time.time_ns() // 1_000_000)

    async def watch_tasks(self, request: control.ListTasksRequest, _caller: Caller, send: Send) -> None:
        store = await self._context.current_store()
        before: control.ListTasksReply | None = None
        while True:
            revision = store.revision
            self._context.leading()
            reply = views.list_tasks(store, request)
            reply.ClearField("revision")
            if reply != before:
                before = control.ListTasksReply()
                before.CopyFrom(reply)
                reply.revision = revision
                await send(reply)
            await trio.sleep(WATCH_INTERVAL_S_MIN)
            with trio.move_on_after(FOLLOW_LOOK_S):
                await store.changed(revision)

    async def logs(self, request: control.LogsRequest, _caller: Caller, send: Send) -> None:
        store = await self._context.current_store()
        tasks = [task for task in lookup.find_tasks(store, request.target) if task.node_id]
        lock = trio.Lock()
        following: set[str] = set()
        async with trio.open_nursery() as nursery:
            while True:
                for task in tasks[-LOG_TASKS_MAX:]:
                    if task.meta.id not in following:
                        following.add(task.meta.id)
                        nursery.start_soon(self._log, task, request, send, lock)
                if not request.follow:
                    return
                await trio.sleep(FOLLOW_LOOK_S)
                self._context.leading()
                try:  # tasks that replace the first ones are followed too
                    tasks = [task for task in lookup.find_tasks(store, request.target) if task.node_id]
                except Refused:
                    return

    async def _log(self, task: objects.Task, request: control.LogsRequest, send: Send, lock: trio.Lock) -> None:
        try:
            if task.spec.container.logging.driver == objects.Logging.DRIVER_NONE:
                raise Refused("nothing is kept of what it writes: its service's logging has the driver none")
            stub = self._context.host(self._context.node(task.node_id))
        except Refused as refused:
            async with lock:
                await send(_note(task, refused.message))
            return
        ask = host.ReadLogRequest(
            task_id=task.meta.id,
            follow=request.follow,
            tail_lines=request.tail_lines,
            since_unix_ms=request.since_unix_ms,
        )
        stream: Any = stub.ReadLog(ask)
        try:
            while (chunk := await call(stream.read())) is not grpc.aio.EOF:
                chunk.task_name = task.meta.name
                async with lock:
                    await send(chunk)
        except (grpc.aio.AioRpcError, ConnectionAbortedError) as error:
            logger.info("log of task %s: %s", task.meta.name, error)
            async with lock:
                await send(_note(task, f"the log ends here: {_words(error)}"))
        finally:
            stream.cancel()

    async def exec(self, receive: Receive, _caller: Caller, send: Send) -> None:
        first: host.ExecInput | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of an exec says what to start")
        store = await self._context.current_store()
        find = _attachable if first.start.attach else lookup.running_task
        task = find(store, first.start.task_id)
        start = host.ExecStart()
        start.CopyFrom(first.start)
        start.task_id = task.meta.id
        try:
            await relay_exec(self._context.host(self._context.node(task.node_id)), start, receive, send)
        except ConnectionAbortedError as error:
            raise Refused("the host of the task does not answer any more", Kind.UNAVAILABLE) from error


def _attachable(store: Store, task_id: str) -> objects.Task:
    """A task that waits for who ran it, whether or not its container is there."""
    task = store.get(objects.Task, task_id)
    if task is None or not task.node_id or not task.spec.container.attached:
        raise Refused(f"task {task_id} is none that `fairway run -i` has made", Kind.NOT_POSSIBLE)
    if ended(task):
        raise Refused(task.status.message or "the task has ended", Kind.NOT_POSSIBLE)
    return task


def _note(task: objects.Task, words: str) -> host.LogChunk:
    line = host.LogLine(standard_error=True, text=f"fairway: {words}".encode())
    return host.LogChunk(task_id=task.meta.id, task_name=task.meta.name, lines=[line])


def _words(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error)
