"""Gives blobs of images to other hosts: a few transfers at a time, and no faster than the configuration allows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from daemon.api.grpc_service import Send
from daemon.errors import Kind, Refused
from daemon.runtime_failures import refused
from proto import host_pb2 as host
from runtime.errors import RuntimeFailure
from runtime.images import ImageStore

SENDS_AT_ONCE_MAX = 8
SENDS_WAITING_MAX = 64
TURN_WAIT_S_MAX = 5.0  # who waited so long is told to look elsewhere
DIGESTS_ASKED_MAX = 1_000


class Bandwidth:
    """Lets so many bytes pass a second, in the order in which they come; 0: all at once."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at_s = 0.0

    async def passed(self, count: int) -> None:
        """Returns when `count` further bytes may be sent."""
        if not self._bytes_per_second:
            return
        begin_s = max(trio.current_time(), self._free_at_s)
        self._free_at_s = begin_s + count / self._bytes_per_second
        await trio.sleep_until(begin_s)


class BlobSending:
    """Lives as long as the daemon."""

    def __init__(self, images: ImageStore, bytes_per_second_max: int) -> None:
        self._images = images
        self._bandwidth = Bandwidth(bytes_per_second_max)
        self._turns = trio.Semaphore(SENDS_AT_ONCE_MAX)

    async def find(self, request: host.FindBlobsRequest) -> host.FindBlobsReply:
        """Which blobs are here. Raises Refused."""
        if len(request.digests) > DIGESTS_ASKED_MAX:
            raise Refused(f"more than {DIGESTS_ASKED_MAX} blobs are asked for at once")
        try:
            held = await self._images.held(request.digests)
        except RuntimeFailure as error:
            raise refused(error) from error
        busy = SENDS_AT_ONCE_MAX - self._turns.value + self._turns.statistics().tasks_waiting
        return host.FindBlobsReply(held=held, sending=busy)

    async def send(self, request: host.ReadBlobRequest, send: Send) -> None:
        """A blob from an offset on. Raises Refused; EXHAUSTED where too many others read."""
        try:
            async with (
                self._turn(),
                contextlib.aclosing(self._images.read_blob(request.digest, request.offset_bytes)) as chunks,
            ):
                async for data in chunks:
                    await self._bandwidth.passed(len(data))
                    await send(host.ReadBlobReply(data=data))
        except RuntimeFailure as error:
            raise refused(error) from error

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        busy = Refused("this host sends as many blobs as it does at a time", Kind.EXHAUSTED)
        if self._turns.statistics().tasks_waiting >= SENDS_WAITING_MAX:
            raise busy
        with trio.move_on_after(TURN_WAIT_S_MAX) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise busy
        try:
            yield
        finally:
            self._turns.release()
