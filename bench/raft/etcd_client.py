"""Puts and linearizable reads through etcd's own API, by grpcio; only the few fields that are used.

The messages are etcd's public etcdserverpb v3: PutRequest(key=1, value=2), RangeRequest(key=1; linearizable
unless `serializable` is set), StatusResponse(header=1 with member_id=2, leader=4).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from bench.raft.load import VALUE_BYTES, Load, Measurement

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
STATUS = "/etcdserverpb.Maintenance/Status"
FILL_AT_ONCE = 64
CALL_SECONDS_MAX = 10.0
PROBE_SECONDS_MAX = 1.0
FIRST_TRY_SECONDS_MAX = 0.25


class EtcdError(Exception):
    """etcd did not answer as wanted."""


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field; numbers below 16 only."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def fields(content: bytes) -> dict[int, int | bytes]:
    """The fields of a message of varints and length-delimited ones; the last of each number."""
    found: dict[int, int | bytes] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = content[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(content):
        key = varint()
        value = varint()
        if key & 7 == 2:
            found[key >> 3] = content[position : position + value]
            position += value
        else:
            found[key >> 3] = value
    return found


def etcd_leader(port: int) -> tuple[int, int]:
    """(own member id, leader's member id) of the member at this port; EtcdError where there is none."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            status_of: Callable[..., bytes] = channel.unary_unary(STATUS)
            reply = status_of(b"", timeout=PROBE_SECONDS_MAX)
        except grpc.RpcError as error:
            raise EtcdError(str(error)) from error
    status = fields(reply)
    header, leader = status.get(1), status.get(4)
    if not isinstance(header, bytes) or not isinstance(leader, int) or not leader:
        raise EtcdError("it knows no leader")
    own = fields(header).get(2)
    assert isinstance(own, int)
    return own, leader


class EtcdClient:
    """Runs clients as tasks of one asyncio loop over one connection a member, as etcd's own client has."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._value = field(2, secrets.token_bytes(VALUE_BYTES))
        self._count = 0

    def write(self, clients: int, seconds: float) -> Load:
        return asyncio.run(self._repeat(PUT, self._new_put, clients, seconds))

    def read(self, clients: int, seconds: float) -> Load:
        return asyncio.run(self._repeat(RANGE, lambda: field(1, b"nothing"), clients, seconds))

    def fill(self, count: int) -> None:
        """Puts `count` new keys, FILL_AT_ONCE at a time."""
        asyncio.run(self._fill(count))

    def first_write(self, seconds_max: float) -> float:
        """Tries until a put is acknowledged; its moment on the monotonic clock."""
        return asyncio.run(self._first_write(seconds_max))

    def _new_put(self) -> bytes:
        self._count += 1
        return field(1, f"bench/{os.getpid()}-{time.monotonic_ns()}-{self._count}".encode()) + self._value

    async def _repeat(self, method: str, request: Callable[[], bytes], clients: int, seconds: float) -> Load:
        measurement = Measurement(seconds)
        async with self._channel(self._ports[0]) as channel:
            call: Callable[..., Awaitable[Any]] = channel.unary_unary(method)
            await call(request(), timeout=CALL_SECONDS_MAX)

            async def client() -> None:
                while measurement.goes_on():
                    began = time.perf_counter()
                    await call(request(), timeout=CALL_SECONDS_MAX)
                    measurement.took(time.perf_counter() - began)

            await asyncio.gather(*(client() for _ in range(clients)))
        return Load(**measurement.result())

    async def _fill(self, count: int) -> None:
        left = count
        async with self._channel(self._ports[0]) as channel:
            put: Callable[..., Awaitable[Any]] = channel.unary_unary(PUT)

            async def client() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await put(self._new_put(), timeout=CALL_SECONDS_MAX)

            await asyncio.gather(*(client() for _ in range(FILL_AT_ONCE)))

    async def _first_write(self, seconds_max: float) -> float:
        deadline = time.monotonic() + seconds_max
        done = asyncio.Event()

        async def attempt(port: int) -> None:
            async with self._channel(port) as channel:
                put: Callable[..., Awaitable[Any]] = channel.unary_unary(PUT)
                while not done.is_set() and time.monotonic() < deadline:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await put(self._new_put(), timeout=FIRST_TRY_SECONDS_MAX)
                        done.set()

        await asyncio.gather(*(attempt(port) for port in self._ports))
        if not done.is_set():
            raise EtcdError(f"no put was acknowledged within {seconds_max:.0f} s")
        return time.monotonic()

    def _channel(self, port: int) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")
