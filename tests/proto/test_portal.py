"""Calls that enter trio from asyncio."""

from __future__ import annotations

import asyncio

import trio

from proto import grpc_trio

WAIT_S_MAX = 10.0


def test_a_call_that_fails_while_it_is_cancelled_does_not_end_the_others() -> None:
    """A host's session did, and with it the daemon: the host had gone, and the write to it failed at that moment."""

    async def body() -> None:
        ended = trio.Event()
        entered = trio.Event()

        async def fails_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()
                raise ValueError("the write failed")

        async def session() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_when_cancelled)
                entered.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            portal = grpc_trio.Portal(nursery)
            calling = asyncio.ensure_future(portal.enter(session))
            other = asyncio.ensure_future(portal.enter(trio.sleep, 0.1))
            with trio.fail_after(WAIT_S_MAX):
                await entered.wait()
                calling.cancel()
                await ended.wait()
                await grpc_trio.call(other)
            nursery.cancel_scope.cancel()
        assert calling.cancelled()

    grpc_trio.run(body)
