"""Passes the bytes of two connections on to each other, within bounds of size and time."""

from __future__ import annotations

import logging

import trio

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 16 << 10


async def relay(one: trio.SocketStream, other: trio.SocketStream, bytes_max: int, ms_max: int) -> None:
    """Copies both ways until both have ended, one failed, `bytes_max` went one way, or `ms_max` are over.

    Closes `other`; the caller closes `one`.
    """
    async with other:
        with trio.move_on_after(ms_max / 1000) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, one, other, bytes_max, nursery.cancel_scope)
                nursery.start_soon(_copy, other, one, bytes_max, nursery.cancel_scope)
        if scope.cancelled_caught:
            logger.info("a relayed join took longer than %d ms and was ended", ms_max)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream, bytes_max: int, both: trio.CancelScope) -> None:
    copied_bytes = 0
    try:
        while data := await source.receive_some(_CHUNK_BYTES):
            copied_bytes += len(data)
            if copied_bytes > bytes_max:
                logger.warning("a relayed join sent more than %d bytes and was ended", bytes_max)
                both.cancel()
                return
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()
