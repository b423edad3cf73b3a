"""What hosts ask of each other for operators' hands: to stop and signal tasks, what they use, and their files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from daemon.api.caller import Caller, require_node
from daemon.api.grpc_service import Receive, Send
from daemon.api.port_forwarding import Forwarding
from daemon.errors import Refused
from daemon.runtime_failures import refused
from proto import hands_pb2 as hands
from proto import objects_pb2 as objects
from runtime.copying import Copying
from runtime.errors import RuntimeFailure
from runtime.processes import processes_of
from runtime.runtime import Runtime
from runtime.usage import usage_of

StopTask = Callable[[str, int], Awaitable[objects.TaskStatus]]


class HostHands:
    """The part of the Host service that is about running tasks."""

    def __init__(self, runtime: Runtime, stop_task: StopTask) -> None:
        """`stop_task` ends a task of this host for an operator (daemon/agent/agent.py)."""
        self._runtime = runtime
        self._stop_task = stop_task
        self._copying = Copying(runtime)
        self._forwarding = Forwarding(runtime)

    async def stop_task(self, request: hands.StopTaskRequest, caller: Caller) -> hands.StopTaskReply:
        require_node(caller)
        status = await self._stop_task(request.task_id, request.grace_ms)
        return hands.StopTaskReply(task=objects.Task(meta=objects.Meta(id=request.task_id), status=status))

    async def signal_task(self, request: hands.SignalTasksRequest, caller: Caller) -> hands.SignalTasksReply:
        require_node(caller)
        try:
            await self._runtime.signal(request.task_id, request.signal)
        except RuntimeFailure as error:
            raise refused(error) from error
        return hands.SignalTasksReply(tasks=[request.task_id])

    async def read_usage(self, request: hands.ReadUsageRequest, caller: Caller) -> hands.ReadUsageReply:
        require_node(caller)
        try:
            return hands.ReadUsageReply(tasks=await usage_of(self._runtime, frozenset(request.task_ids)))
        except RuntimeFailure as error:
            raise refused(error) from error

    async def list_processes(self, request: hands.ListProcessesRequest, caller: Caller) -> hands.ListProcessesReply:
        require_node(caller)
        try:
            return await processes_of(self._runtime, request.task_id)
        except RuntimeFailure as error:
            raise refused(error) from error

    async def copy_from(self, request: hands.CopyFromRequest, caller: Caller, send: Send) -> None:
        require_node(caller)
        try:
            await self._copying.copy_from(request, send)
        except RuntimeFailure as error:
            raise refused(error) from error

    async def copy_to(self, receive: Receive, caller: Caller) -> hands.CopyToReply:
        require_node(caller)
        first: hands.CopyToRequest | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of a copy says where it goes")

        async def archive() -> bytes | None:
            while True:
                message: hands.CopyToRequest | None = await receive()
                if message is None or message.end or message.data:
                    return None if message is None else message.data

        try:
            return await self._copying.copy_to(first.start, archive)
        except RuntimeFailure as error:
            raise refused(error) from error

    async def forward(self, receive: Receive, caller: Caller, send: Send) -> None:
        require_node(caller)
        first: hands.ForwardInput | None = await receive()
        if first is None or not first.HasField("start"):
            raise Refused("the first message of a forwarded connection says where it goes")
        try:
            await self._forwarding.serve(first.start, receive, send)
        except RuntimeFailure as error:
            raise refused(error) from error
