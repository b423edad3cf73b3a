"""The bridge between trio and grpc.aio."""

from __future__ import annotations

import asyncio

import pytest

from proto import grpc_trio


def test_a_call_that_has_ended_already_is_an_aborted_connection() -> None:
    """grpc.aio has an error of its own for it, which nobody expects: it ended the daemon."""

    async def write() -> None:
        raise asyncio.InvalidStateError("RPC already finished.")

    async def body() -> None:
        with pytest.raises(ConnectionAbortedError, match="RPC already finished"):
            await grpc_trio.call(write())

    grpc_trio.run(body)
