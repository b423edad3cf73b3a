"""The two gRPC servers of a host: the Unix socket for root on it, and the API port for everybody else.

Both serve health and reflection. The port takes only connections with a certificate of the cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import trio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from daemon.errors import Kind, Refused
from daemon.peers import MESSAGE_BYTES_MAX, target
from proto.grpc_trio import call

logger = logging.getLogger(__name__)

STREAMS_MAX = 4_096  # calls under way at once
STOP_GRACE_S = 0.5
OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]


@contextlib.asynccontextmanager
async def unix_server(
    path: Path, handlers: Sequence[grpc.GenericRpcHandler], names: Sequence[str]
) -> AsyncIterator[None]:
    """Serves on a Unix socket that only its owner can open. Raises Refused where it cannot be made."""
    await trio.to_thread.run_sync(_make_room, path)
    server = await _server(handlers, names)
    before = os.umask(0o177)
    try:
        if server.add_insecure_port(f"unix:{path}") == 0:
            raise Refused(f"cannot listen on {path}", Kind.NOT_POSSIBLE)
        await call(server.start())
    except RuntimeError as error:
        raise Refused(f"cannot listen on {path}: {error}", Kind.NOT_POSSIBLE) from error
    finally:
        os.umask(before)
    async with _serving(server):
        yield


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)  # left by a daemon that was killed


@contextlib.asynccontextmanager
async def port_server(
    address: str,
    port: int,
    credentials: grpc.ServerCredentials,
    handlers: Sequence[grpc.GenericRpcHandler],
    names: Sequence[str],
) -> AsyncIterator[None]:
    """Serves on a TCP port by mutual TLS. Raises Refused where the port is taken."""
    server = await _server(handlers, names)
    where = target(address, port)
    try:
        if server.add_secure_port(where, credentials) == 0:
            raise RuntimeError("the port is taken, or the address is not this host's")
        await call(server.start())
    except RuntimeError as error:
        raise Refused(
            f"cannot listen on {where}: {error}; free the port or set another in [api] port",
            Kind.NOT_POSSIBLE,
        ) from error
    async with _serving(server):
        yield


async def _server(handlers: Sequence[grpc.GenericRpcHandler], names: Sequence[str]) -> grpc.aio.Server:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(tuple(handlers))
    servicer = health.aio.HealthServicer()
    for name in (*names, ""):
        await call(servicer.set(name, health_pb2.HealthCheckResponse.SERVING))
    health_service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health_service.full_name, reflection.SERVICE_NAME], server)
    return server


@contextlib.asynccontextmanager
async def _serving(server: grpc.aio.Server) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await call(server.stop(STOP_GRACE_S))
