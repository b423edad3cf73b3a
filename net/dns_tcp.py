"""Answers queries over TCP: several at a time on a connection, each as soon as its answer is known (RFC 7766)."""

from __future__ import annotations

import logging
import struct
from collections import Counter

import trio

from net.dns_answers import Answers, Passed
from net.dns_limits import MAKING_POINTS as POINTS_EACH
from net.dns_limits import POINTS_PER_WINDOW, WINDOW_SECONDS
from net.dns_upstream import Upstream
from net.model import Counters

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
CONNECTIONS_PER_ASKER_MAX = 32
IDLE_SECONDS_MAX = 10.0
FORWARDED_PER_CONNECTION_MAX = 32
_QUERIES_PER_PAUSE = POINTS_PER_WINDOW // POINTS_EACH
_CHUNK_BYTES = 16384


class TcpService:
    """All connections of all addresses that are served."""

    def __init__(self, answers: Answers, upstream: Upstream, counters: Counters) -> None:
        self._answers = answers
        self._upstream = upstream
        self._counters = counters
        self._connections: Counter[str] = Counter()

    async def run(self, listener: trio.socket.SocketType) -> None:
        """Accepts until cancelled; raises OSError where the listening socket fails."""
        async with trio.open_nursery() as nursery:
            while True:
                socket, peer = await listener.accept()
                asker = peer[0]
                if (
                    self._connections.total() >= CONNECTIONS_MAX
                    or self._connections[asker] >= CONNECTIONS_PER_ASKER_MAX
                ):
                    self._counters.dns_refused_count += 1
                    socket.close()
                    continue
                self._connections[asker] += 1
                nursery.start_soon(self._serve, socket, asker)

    async def _serve(self, socket: trio.socket.SocketType, asker: str) -> None:
        try:
            async with trio.SocketStream(socket) as stream, trio.open_nursery() as nursery:
                connection = _Connection(self._answers, self._upstream, self._counters, stream, asker)
                await connection.answer_all(nursery)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the asker is gone
        except* Exception:
            log.exception("answer name queries over TCP from %s", asker)
        finally:
            self._connections[asker] -= 1
            if not self._connections[asker]:
                del self._connections[asker]


class _Connection:
    def __init__(
        self, answers: Answers, upstream: Upstream, counters: Counters, stream: trio.SocketStream, asker: str
    ) -> None:
        self._answers = answers
        self._upstream = upstream
        self._counters = counters
        self._stream = stream
        self._asker = asker
        self._writing = trio.Lock()
        self._forwarded = trio.CapacityLimiter(FORWARDED_PER_CONNECTION_MAX)

    async def answer_all(self, nursery: trio.Nursery) -> None:
        """Until the asker closes, or is idle for too long, or sends what is no query."""
        received, count = bytearray(), 0
        while True:
            with trio.move_on_after(IDLE_SECONDS_MAX):
                part = await self._stream.receive_some(_CHUNK_BYTES)
                if not part:
                    return  # what was passed on is still answered
                received += part
                while (data := _taken(received)) is not None:
                    count += 1
                    if count % _QUERIES_PER_PAUSE == 0:
                        await trio.sleep(WINDOW_SECONDS)
                    if not await self._answer(data, nursery):
                        break
                else:
                    continue
            nursery.cancel_scope.cancel()
            return

    async def _answer(self, data: bytes, nursery: trio.Nursery) -> bool:
        self._counters.dns_query_count += 1
        found = self._answers.answer(data, self._asker, tcp=True)
        if found is None:
            return False
        if not isinstance(found, Passed):
            await self._send(data[:2] + found[data[1] % len(found)])
        elif (kept := self._upstream.kept(found)) is not None:
            await self._send(kept)
        else:
            await self._forwarded.acquire_on_behalf_of(found)
            nursery.start_soon(self._forward, found)
        return True

    async def _forward(self, passed: Passed) -> None:
        try:
            await self._send(await self._upstream.ask(passed, self._asker))
        finally:
            self._forwarded.release_on_behalf_of(passed)

    async def _send(self, answer: bytes) -> None:
        async with self._writing:
            await self._stream.send_all(struct.pack(">H", len(answer)) + answer)


def _taken(received: bytearray) -> bytes | None:
    """The first whole message, taken out; None where none is complete."""
    if len(received) < 2:
        return None
    end = 2 + int.from_bytes(received[:2], "big")
    if len(received) < end:
        return None
    data = bytes(received[2:end])
    del received[:end]
    return data
