"""One TLS connection between two members: framed reading with a bound, and who is at the other end.

The connection is an `ssl` socket that never blocks, driven by trio's readiness: a frame is handed to the
kernel by the very call that sends it, before the turn goes on to its disk, and no task has to wake up for
that. Only where the kernel takes nothing any more does a task wait and send the rest.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import trio

from raft.codec import LENGTH_BYTES, length_of
from raft.settings import RaftSettings

log = logging.getLogger(__name__)

READ_BYTES = 65536
RECORD_BYTES = 16384  # of a full TLS record (RFC 8446, 5.1): most often another follows
SEND_BYTES = 256 * 1024  # frames joined into one TLS write
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


class Line:
    """An open connection whose handshake is done. Belongs to one trio loop; OSError where it breaks."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        self._begun = b""  # given to TLS and not taken yet: TLS wants exactly these bytes again
        self._drained = False  # TLS holds nothing more: only the socket can have something
        self.waiting_bytes = 0

    def certificate_der(self) -> bytes:
        """The verified certificate of the other end; ValueError where it showed none."""
        certificate = self._connection.getpeercert(binary_form=True)
        if not certificate:
            raise ValueError("the other end showed no certificate")
        return certificate

    def address(self) -> str:
        """The other end's IP address."""
        return str(self._connection.getpeername()[0])

    def queue(self, content: bytes) -> None:
        """Appends bytes to what waits; `push` sends them."""
        self._waiting.append(content)
        self.waiting_bytes += len(content)

    def push(self) -> bool:
        """Sends as much as the kernel takes now; True where nothing is left."""
        while self._begun or self._waiting:
            if not self._begun:
                self._begun = self._take()
            try:
                self._connection.send(self._begun)
            except ssl.SSLWantWriteError:
                return False
            self.waiting_bytes -= len(self._begun)
            self._begun = b""
        return True

    async def drain(self) -> None:
        """Sends all that waits."""
        while not self.push():
            await trio.lowlevel.wait_writable(self._connection)

    async def receive(self) -> bytes:
        """At most READ_BYTES, and at least one; empty where the other end has closed."""
        connection = self._connection
        if self._drained:
            # OpenSSL does not read ahead. To try first would most often be a call and an exception in vain.
            await trio.lowlevel.wait_readable(connection)
        while True:
            try:
                arrived = connection.recv(READ_BYTES)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(connection)
            except ssl.SSLEOFError:
                return b""
            else:
                self._drained = len(arrived) < RECORD_BYTES and not connection.pending()
                return arrived

    def close(self) -> None:
        """Closes the socket without a goodbye; safe to repeat. Who waits on it gets trio.ClosedResourceError."""
        if self._connection.fileno() >= 0:
            trio.lowlevel.notify_closing(self._connection)
            self._connection.close()

    def _take(self) -> bytes:
        taken = [self._waiting.popleft()]
        size = len(taken[0])
        while self._waiting and size + len(self._waiting[0]) <= SEND_BYTES:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        return b"".join(taken) if len(taken) > 1 else taken[0]


async def secured(plain: trio.SocketStream, context: ssl.SSLContext, settings: RaftSettings, server_side: bool) -> Line:
    """Takes over an open TCP connection and shakes hands.

    OSError (ssl.SSLError is one) where that fails; the caller bounds the time. The connection is closed then.
    """
    _quick(plain, settings)
    raw = socket.socket(fileno=plain.socket.detach())
    try:
        raw.setblocking(False)
        connection = context.wrap_socket(raw, server_side=server_side, do_handshake_on_connect=False)
    except BaseException:
        raw.close()
        raise
    line = Line(connection)
    try:
        while True:
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(connection)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(connection)
            else:
                return line
    except BaseException:
        line.close()
        raise


def _quick(stream: trio.SocketStream, settings: RaftSettings) -> None:
    """Sends small frames at once, and notices within seconds that the other end is gone."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.connection_silence_ms_max)


class Frames:
    """What arrives on a line, cut into frames."""

    def __init__(self, line: Line, frame_bytes_max: int) -> None:
        self._line, self._frame_bytes_max = line, frame_bytes_max
        self._rest = b""

    async def receive(self) -> list[bytes]:
        """The contents of the frames that have arrived, at least one; none where the other end has closed.

        ValueError for a frame that is too long.
        """
        gathered = self._rest
        wanted = LENGTH_BYTES
        pieces = [gathered]
        size = len(gathered)
        while True:
            arrived = await self._line.receive()
            if not arrived:
                return []
            pieces.append(arrived)
            size += len(arrived)
            if size < wanted:
                continue
            content = b"".join(pieces) if len(pieces) > 1 else arrived
            taken, position = self._cut(content)
            if taken:
                self._rest = content[position:]
                return taken
            pieces = [content]
            wanted = self._wanted(content)

    def _cut(self, content: bytes) -> tuple[list[bytes], int]:
        taken: list[bytes] = []
        position, size = 0, len(content)
        while size - position >= LENGTH_BYTES:
            begin = position + LENGTH_BYTES
            end = begin + length_of(content[position:begin], self._frame_bytes_max)
            if size < end:
                break
            taken.append(content[begin:end])
            position = end
        return taken, position

    def _wanted(self, content: bytes) -> int:
        if len(content) < LENGTH_BYTES:
            return LENGTH_BYTES
        return LENGTH_BYTES + length_of(content[:LENGTH_BYTES], self._frame_bytes_max)


async def dial(address: str, port: int, member: str, tls: TlsSource, settings: RaftSettings) -> Line:
    """Connects to a member and makes sure that it is that one.

    OSError, ssl errors or trio.TooSlowError where it cannot be reached; ValueError where somebody else is there.
    """
    with trio.fail_after(settings.connect_ms_max / 1000):
        plain = await trio.open_tcp_stream(address, port)
        line = await secured(plain, tls.client_context(), settings, server_side=False)
    try:
        found = tls.peer_node_id(line.certificate_der())
        if found != member:
            raise ValueError(f"{address}:{port} is {found}, not {member}")
    except BaseException:
        line.close()
        raise
    return line


@contextlib.contextmanager
def closing(line: Line) -> Iterator[Line]:
    """Closes the socket at the end without waiting for the other side's goodbye."""
    try:
        yield line
    finally:
        line.close()
