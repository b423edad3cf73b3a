"""The control API's methods about tasks: listing, watching, logs and processes in them."""

from __future__ import annotations

import time

import trio

from daemon import lookup
from daemon.api import control_views as views
from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.exec_relay import relay_exec
from daemon.api.grpc_service import Receive, Send
from daemon.api.log_relay import LogRelay
from daemon.errors import Kind, Refused
from daemon.orchestration.task_states import ended
from daemon.pulling.image_plan import one_matching
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto import why_pb2
from raft.store import Store

WATCH_INTERVAL_S_MIN = 0.1
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
        await LogRelay(self._context, await self._context.current_store(), request, send).run()

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
        if start.HasField("debug"):
            start.debug.image_digest = one_matching(store, start.debug.image).manifest_digest
        try:
            await relay_exec(self._context.host(self._context.node(task.node_id)), start, receive, send)
        except ConnectionAbortedError as error:
            raise Refused("the host of the task does not answer any more", Kind.UNAVAILABLE) from error


def _attachable(store: Store, task_id: str) -> objects.Task:
    """A task that waits for who ran it, whether or not its container is there; else one that runs."""
    task = store.get(objects.Task, task_id)
    if task is None or not task.node_id or not task.spec.container.attached:
        return lookup.running_task(store, task_id)
    if ended(task):
        raise Refused(task.status.message or "the task has ended", Kind.NOT_POSSIBLE)
    return task
