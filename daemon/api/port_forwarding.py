"""One forwarded TCP connection between its gRPC stream and a socket in the task's network namespace."""

from __future__ import annotations

from pathlib import Path

import trio

from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from net.dialing import dial
from net.errors import NetworkError
from proto.hands_pb2 import ForwardInput, ForwardOutput, ForwardStart
from runtime.runtime import Runtime

CONNECTIONS_MAX = 512  # to tasks of this host
CHUNK_BYTES = 64 << 10
LOOPBACK = ("127.0.0.1", "::1")


class Forwarding:
    """Of one host."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._going_on = 0

    async def serve(self, start: ForwardStart, receive: Receive, send: Send) -> None:
        """Until both sides have ended, or one of them has gone away. Raises Refused, NotFound."""
        if self._going_on >= CONNECTIONS_MAX:
            raise Refused(f"the task's host forwards {CONNECTIONS_MAX} connections already", Kind.EXHAUSTED)
        if not 0 < start.port < 1 << 16:
            raise Refused(f"{start.port} is no port", Kind.INVALID)
        self._going_on += 1
        try:
            async with await self._connect(start) as stream:
                await send(ForwardOutput(connected=start.task_id))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_down, stream, send)
                    if not await _up(stream, receive):
                        nursery.cancel_scope.cancel()
        finally:
            self._going_on -= 1

    async def _connect(self, start: ForwardStart) -> trio.SocketStream:
        process_id = await self._runtime.first_process(start.task_id)
        addresses = (*LOOPBACK, start.address) if start.address else LOOPBACK
        try:
            stream = await dial(Path(f"/proc/{process_id}/ns/net"), addresses, start.port)
        except NetworkError as error:
            raise Refused(f"port {start.port} of the task takes no connection ({error})", Kind.NOT_POSSIBLE) from error
        try:
            if await self._runtime.first_process(start.task_id) != process_id:  # whose number was used again meanwhile
                raise Refused("the task does not run any more", Kind.NOT_POSSIBLE)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


async def _up(stream: trio.SocketStream, receive: Receive) -> bool:
    """Towards the task; False where the client or the task broke off."""
    while True:
        message: ForwardInput | None = await receive()
        if message is None:
            return False
        try:
            if message.end:
                await stream.send_eof()
                return True
            await stream.send_all(message.data)
        except trio.BrokenResourceError:
            return False


async def _down(stream: trio.SocketStream, send: Send) -> None:
    try:
        while data := await stream.receive_some(CHUNK_BYTES):
            await send(ForwardOutput(data=data))
    except trio.BrokenResourceError as error:
        raise Refused("the task has reset the connection", Kind.UNAVAILABLE) from error
    await send(ForwardOutput(end=True))
