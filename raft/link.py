"""One TLS connection between two members: framed reading with a bound, and who is at the other end."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import trio

from raft.codec import LENGTH_BYTES, length_of
from raft.settings import RaftSettings

log = logging.getLogger(__name__)

READ_BYTES = 65536
KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_PROBES = 3


class TlsSource(Protocol):
    """This node's keys and whom it trusts; asked again for every connection, so that they may be renewed."""

    def server_context(self) -> ssl.SSLContext:
        """Demands a certificate of the cluster from who connects."""
        ...

    def client_context(self) -> ssl.SSLContext:
        """Shows this node's certificate and demands one of the cluster."""
        ...

    def peer_node_id(self, certificate_der: bytes) -> str:
        """The node id in a verified certificate; ValueError where it names none."""
        ...


def quick(stream: trio.SocketStream, settings: RaftSettings) -> None:
    """Sends small frames at once, and notices within seconds that the other end is gone."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.connection_silence_ms_max)


def peer_of(stream: trio.SSLStream[trio.SocketStream], tls: TlsSource) -> str:
    """The node id at the other end, after the handshake; ValueError where its certificate names none."""
    certificate = stream.getpeercert(binary_form=True)
    if not certificate:
        raise ValueError("the other end showed no certificate")
    return tls.peer_node_id(certificate)


async def frames(
    stream: trio.SSLStream[trio.SocketStream], frame_bytes_max: int, alive: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The content of every frame until the other end closes; ValueError for one that is too long.

    `alive` is called whenever something arrives.
    """
    buffer = bytearray()
    while True:
        while len(buffer) >= LENGTH_BYTES:
            length = length_of(bytes(buffer[:LENGTH_BYTES]), frame_bytes_max)
            if len(buffer) < LENGTH_BYTES + length:
                break
            content = bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + length])
            del buffer[: LENGTH_BYTES + length]
            yield content
        arrived = await stream.receive_some(READ_BYTES)
        if not arrived:
            return
        alive()
        buffer += arrived


async def dial(
    address: str, port: int, member: str, tls: TlsSource, settings: RaftSettings
) -> trio.SSLStream[trio.SocketStream]:
    """Connects to a member and makes sure that it is that one.

    OSError, trio.BrokenResourceError, ssl errors or trio.TooSlowError where it cannot be reached; ValueError
    where somebody else is there.
    """
    with trio.fail_after(settings.connect_ms_max / 1000):
        plain = await trio.open_tcp_stream(address, port)
        stream = trio.SSLStream(plain, tls.client_context(), server_hostname=None, https_compatible=False)
        try:
            quick(plain, settings)
            await stream.do_handshake()
            found = peer_of(stream, tls)
            if found != member:
                raise ValueError(f"{address}:{port} is {found}, not {member}")
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    return stream


@contextlib.asynccontextmanager
async def closing(stream: trio.SSLStream[trio.SocketStream]) -> AsyncIterator[None]:
    """Closes the socket at the end without waiting for the other side's goodbye."""
    try:
        yield
    finally:
        await trio.aclose_forcefully(stream)
