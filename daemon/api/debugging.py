"""A toolbox container beside a task, between its gRPC stream and the runtime."""

from __future__ import annotations

from contextlib import suppress

import trio

from daemon.agent.debug_containers import DebugContainers
from daemon.api.exec_relay import NOT_STARTED, feed, tell_not_started
from daemon.api.grpc_service import Receive, Send
from daemon.runtime_failures import refused
from proto.host_pb2 import ExecOutput, ExecStart
from runtime.errors import CannotStart, NotFound, RuntimeFailure

END_S_MAX = 10.0  # from the end of what it writes to that of the process
EXIT_CODE_KILLED = 137


async def serve_debug(containers: DebugContainers, start: ExecStart, receive: Receive, send: Send) -> None:
    """Until its first process ends; a caller that disappears ends it. Raises Refused."""
    try:
        container_id = await containers.make(start, lambda _: None)
        try:
            await send(ExecOutput(exit_code=await _serve(containers, container_id, start, receive, send)))
        finally:
            await containers.remove(container_id)
    except CannotStart as error:
        await tell_not_started(str(error), NOT_STARTED, send)
    except RuntimeFailure as error:
        raise refused(error) from error


async def _serve(containers: DebugContainers, container_id: str, start: ExecStart, receive: Receive, send: Send) -> int:
    """Its exit code."""
    session = containers.runtime.attach(container_id)
    try:
        if start.tty and start.size.columns:
            await session.resize(start.size.columns, start.size.rows)
        await containers.runtime.start(container_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, session, receive)
            async for stream, data in session.outputs():
                await send(ExecOutput(stderr=data) if stream == "stderr" else ExecOutput(stdout=data))
            code = EXIT_CODE_KILLED
            with trio.move_on_after(END_S_MAX), suppress(NotFound):
                code = await session.wait()
            nursery.cancel_scope.cancel()
    finally:
        await session.close()
    return code
