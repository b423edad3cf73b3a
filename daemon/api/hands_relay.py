"""Passes an operator's stream on to the host of a task, in both directions and with backpressure."""

from __future__ import annotations

from typing import Any

import grpc
import trio

from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from proto.grpc_trio import call, patient

GONE = "the host of the task does not answer any more"


async def relay_out(stream: Any, send: Send) -> None:
    """The replies of a call, until its end. Raises AioRpcError with the host's refusal."""
    try:
        while (reply := await call(stream.read())) is not grpc.aio.EOF:
            await send(reply)
    except ConnectionAbortedError as error:
        raise Refused(GONE, Kind.UNAVAILABLE) from error
    finally:
        stream.cancel()


async def relay_in(stream: Any, first: Any, receive: Receive) -> Any:
    """The one reply of a call that takes a stream: `first` and all that is received. It may come before the end of
    that. Raises AioRpcError with the host's refusal."""
    replies: list[Any] = []
    patient(stream)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, stream, first, receive)
            replies.append(await call(stream))
            nursery.cancel_scope.cancel()
    except ConnectionAbortedError as error:
        raise Refused(GONE, Kind.UNAVAILABLE) from error
    finally:
        stream.cancel()
    return replies[0]


async def relay_both(stream: Any, first: Any, receive: Receive, send: Send) -> None:
    """A call with streams both ways. Raises AioRpcError with the host's refusal."""
    patient(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, stream, first, receive)
        await relay_out(stream, send)
        nursery.cancel_scope.cancel()


async def _feed(stream: Any, first: Any, receive: Receive) -> None:
    try:
        await call(stream.write(first))
        while (message := await receive()) is not None:
            await call(stream.write(message))
        await call(stream.done_writing())
    except (grpc.aio.UsageError, grpc.aio.AioRpcError, ConnectionAbortedError):
        return  # the call has ended; who reads its replies learns why
