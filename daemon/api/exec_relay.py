"""A process in a container, between its gRPC stream and the runtime."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import trio

from daemon.api.grpc_service import Receive, Send
from daemon.runtime_failures import refused
from proto.grpc_trio import call, patient
from proto.host_pb2 import ExecInput, ExecOutput, ExecStart
from proto.host_pb2_grpc import HostStub
from runtime.attaching import AttachSession
from runtime.errors import CannotStart, RuntimeFailure
from runtime.execution import ExecSession
from runtime.runtime import Runtime

NOT_FOUND, NOT_STARTED = 127, 126  # as a shell has it: a command that is not there, one that does not run


async def serve_exec(runtime: Runtime, start: ExecStart, receive: Receive, send: Send) -> None:
    """Runs what `start` asks for until it ends; a caller that disappears ends it."""
    try:
        session = await runtime.exec(
            start.task_id,
            list(start.command),
            environment=dict(start.environment),
            user=start.user,
            working_dir=start.working_dir,
            tty=start.tty,
            stdin=start.stdin,
        )
    except CannotStart as error:
        await tell_not_started(str(error), NOT_STARTED, send)
        return
    except RuntimeFailure as error:
        raise refused(error) from error
    async with session:
        if start.tty and start.size.columns:
            await session.resize(start.size.columns, start.size.rows)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, session, receive)
            async for stream, data in session.outputs():
                await send(ExecOutput(stderr=data) if stream == "stderr" else ExecOutput(stdout=data))
            await send(ExecOutput(exit_code=await session.wait()))
            nursery.cancel_scope.cancel()


async def tell_not_started(problem: str, otherwise: int, send: Send) -> None:
    """What hindered a process, and NOT_FOUND where that was a command that is not there; or else the other code."""
    missing = "not found" in problem or "no such file" in problem
    await send(ExecOutput(stderr=f"{problem}\n".encode()))
    await send(ExecOutput(exit_code=NOT_FOUND if missing else otherwise))


async def feed(session: ExecSession | AttachSession, receive: Receive) -> None:
    """Passes on what the caller says to the process, until cancelled or there is no more."""
    while (message := await receive()) is not None:
        match message.WhichOneof("input"):
            case "stdin":
                with contextlib.suppress(BrokenPipeError):  # it reads no more: its end and its exit code come
                    await session.send_stdin(message.stdin)
            case "resize":
                await session.resize(message.resize.columns, message.resize.rows)
            case "close_stdin":
                await session.close_stdin()
            case "signal":
                await session.signal(message.signal)


async def relay_exec(stub: HostStub, start: ExecStart, receive: Receive, send: Send) -> None:
    """Passes an operator's exec on to the host of the task. Raises AioRpcError with the host's refusal."""
    stream: Any = patient(stub.Exec())  # type: ignore[call-arg]

    async def pass_on() -> None:
        try:
            await call(stream.write(ExecInput(start=start)))
            while (message := await receive()) is not None:
                await call(stream.write(message))
            await call(stream.done_writing())
        except (grpc.aio.UsageError, grpc.aio.AioRpcError, ConnectionAbortedError):
            return  # the call has ended; the reader learns why

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on)
            while (output := await call(stream.read())) is not grpc.aio.EOF:
                await send(output)
            nursery.cancel_scope.cancel()
    finally:
        stream.cancel()
