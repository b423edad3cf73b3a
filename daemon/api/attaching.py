"""The first process of a task's container, between its gRPC stream and the runtime: for who ran it, or looks on."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.agent.attachments import Attachment, Attachments
from daemon.api.exec_relay import feed, tell_not_started
from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from proto.host_pb2 import ExecInput, ExecOutput, ExecStart
from runtime.attaching import AttachSession
from runtime.errors import NotFound
from runtime.runtime import Runtime

TASK_NEWS_S_MAX = 5.0  # who asks may have heard of the task before its host
LOOK_S = 0.05
NO_CONTAINER = 125  # the exit code, as docker has it
VISIT_END_S_MAX = 3.0
END_S_MAX = 10.0  # from the end of what it writes to that of the process


async def serve_attach(
    runtime: Runtime,
    attachments: Attachments,
    known: Callable[[str], bool],
    start: ExecStart,
    receive: Receive,
    send: Send,
) -> None:
    """Until the process ends, or the caller disappears, which ends the task. `known`: whether the host has a task."""
    with trio.move_on_after(TASK_NEWS_S_MAX):
        while not known(start.task_id):  # noqa: ASYNC110 the view tells nobody of single tasks
            await trio.sleep(LOOK_S)
    if not known(start.task_id):
        raise Refused("the task is not on its host any more", Kind.NOT_FOUND)
    attachment = attachments.of(start.task_id)
    if attachment.attached.is_set():
        raise Refused("somebody else is attached to it", Kind.NOT_POSSIBLE)
    ended = False
    try:
        await _wait_made(attachment)
        if attachment.problem:
            await tell_not_started(f"fairway: {attachment.problem}", NO_CONTAINER, send)
            return
        try:
            session = runtime.attach(start.task_id)
        except NotFound as error:
            raise Refused(str(error), Kind.NOT_FOUND) from error
        try:
            ended = await _serve(session, attachment, start, receive, send)
        finally:
            await session.close()
    finally:
        if not ended:
            attachment.gone.set()


async def serve_visit(runtime: Runtime, start: ExecStart, receive: Receive, send: Send) -> None:
    """To a task that runs, and goes on when the caller leaves. Its input stays open: others may write to it."""
    try:
        session = runtime.attach(start.task_id, visiting=True)
    except NotFound as error:
        raise Refused("the task does not run on its host any more", Kind.NOT_FOUND) from error

    async def received() -> ExecInput | None:
        while True:
            message: ExecInput | None = await receive()
            if message is None or not message.HasField("close_stdin"):
                return message

    try:
        if start.tty and start.size.columns:  # twice: a program that fills the screen draws it anew
            await session.resize(start.size.columns, start.size.rows + 1)
            await session.resize(start.size.columns, start.size.rows)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, session, received)
            async for stream, data in session.outputs():
                await send(ExecOutput(stderr=data) if stream == "stderr" else ExecOutput(stdout=data))
            code = None
            with trio.move_on_after(VISIT_END_S_MAX):
                code = await session.wait()
            nursery.cancel_scope.cancel()
    finally:
        await session.close()
    if code is None:
        raise Refused("what it writes was not taken in time, and it does not wait for who looks on", Kind.NOT_POSSIBLE)
    await send(ExecOutput(exit_code=code))


async def _wait_made(attachment: Attachment) -> None:
    async with trio.open_nursery() as nursery:

        async def over() -> None:
            await attachment.over.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(over)
        await attachment.made.wait()
        nursery.cancel_scope.cancel()
    if attachment.over.is_set() and not attachment.problem:
        raise Refused("the task ended before it had started", Kind.NOT_POSSIBLE)


async def _serve(
    session: AttachSession, attachment: Attachment, start: ExecStart, receive: Receive, send: Send
) -> bool:
    """Whether the process has ended."""
    if start.tty and start.size.columns:
        await session.resize(start.size.columns, start.size.rows)
    attachment.attached.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, session, receive)
        async for stream, data in session.outputs():
            await send(ExecOutput(stderr=data) if stream == "stderr" else ExecOutput(stdout=data))
        code = None
        if not attachment.problem:
            with trio.move_on_after(END_S_MAX):
                code = await session.wait()
        nursery.cancel_scope.cancel()
    if attachment.problem:
        await tell_not_started(f"fairway: {attachment.problem}", NO_CONTAINER, send)
        return True
    if code is None:
        raise Refused("it writes nothing any more and has not ended", Kind.NOT_POSSIBLE)
    await send(ExecOutput(exit_code=code))
    return True
