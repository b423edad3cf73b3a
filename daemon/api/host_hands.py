"""What hosts ask of each other for operators' hands: tasks of the callee that are to stop, or to get a signal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from daemon.api.caller import Caller, require_node
from daemon.errors import Kind, Refused
from proto import hands_pb2 as hands
from proto import objects_pb2 as objects
from runtime.errors import InvalidRequest, NotFound, RuntimeFailure
from runtime.runtime import Runtime

StopTask = Callable[[str, int], Awaitable[objects.TaskStatus]]


class HostHands:
    """The part of the Host service that is about running tasks."""

    def __init__(self, runtime: Runtime, stop_task: StopTask) -> None:
        """`stop_task` ends a task of this host for an operator (daemon/agent/agent.py)."""
        self._runtime = runtime
        self._stop_task = stop_task

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


def refused(error: RuntimeFailure) -> Refused:
    """What the one who asked is told."""
    if isinstance(error, InvalidRequest):
        return Refused(str(error), Kind.INVALID)
    return Refused(str(error), Kind.NOT_FOUND if isinstance(error, NotFound) else Kind.NOT_POSSIBLE)
