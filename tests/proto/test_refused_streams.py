"""A call whose stream is refused while it is being sent ends with the server's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from daemon.api.hands_relay import relay_both, relay_in
from proto import grpc_trio
from proto.grpc_trio import call

ROUNDS = 60
WORDS = "there is no room for it"
SERVICE = "test.Refusing"


async def refuse(_requests: Any, context: Any) -> Any:
    await context.read()
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, WORDS)


def handlers() -> grpc.GenericRpcHandler:
    codec: dict[str, Any] = {"request_deserializer": bytes, "response_serializer": bytes}
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "In": grpc.stream_unary_rpc_method_handler(refuse, **codec),
            "Both": grpc.stream_stream_rpc_method_handler(refuse, **codec),
        },
    )


@pytest.mark.parametrize("method", ["In", "Both"])
def test_the_refusal_is_the_server_s(tmp_path: Path, method: str) -> None:
    async def more() -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(20_000)

    async def send(_message: Any) -> None:
        raise AssertionError("nothing is answered")

    async def body() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(),))
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await call(server.start())
        channel = grpc.aio.insecure_channel(f"unix:{tmp_path}/s")
        try:
            for _ in range(ROUNDS):
                path = f"/{SERVICE}/{method}"
                stream: Any = channel.stream_unary(path)() if method == "In" else channel.stream_stream(path)()
                relayed = (
                    relay_in(stream, b"first", more) if method == "In" else relay_both(stream, b"first", more, send)
                )
                with trio.fail_after(10):
                    try:
                        await relayed
                    except* grpc.aio.AioRpcError as group:
                        error = group.exceptions[0]
                        assert isinstance(error, grpc.aio.AioRpcError)
                        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, WORDS)
                    else:
                        raise AssertionError("it was refused")
        finally:
            await call(channel.close())
            await call(server.stop(None))

    grpc_trio.run(body)
