"""The name server of a host: UDP and TCP at the tasks' gateway address and at the host's tunnel address."""

from __future__ import annotations

import errno
import logging
import socket as plain_socket
import struct

import trio

from net import dns_message as message
from net.dns_message import MalformedMessage, Query
from net.dns_names import NameIndex, Outcome
from net.dns_upstream import Upstream
from net.model import Counters

log = logging.getLogger(__name__)

PORT = 53
OWN_TTL_SECONDS = 5
TCP_CONNECTIONS_MAX = 128
TCP_IDLE_SECONDS_MAX = 10.0
TCP_QUERIES_PER_CONNECTION_MAX = 100
_REBIND_SECONDS_FIRST, _REBIND_SECONDS_MAX = 0.5, 30.0
_IP_FREEBIND = 15
_RECEIVE_BUFFER_BYTES = 1 << 20

_CODES = {
    Outcome.FOUND: message.NO_ERROR,
    Outcome.MISSING: message.NAME_ERROR,
    Outcome.UNKNOWN_ASKER: message.SERVER_FAILURE,
    Outcome.REFUSED: message.REFUSED,
}


class NameServer:
    """Answers from `names` at once and hands the rest to `upstream`."""

    def __init__(self, names: NameIndex, upstream: Upstream, counters: Counters) -> None:
        self._names = names
        self._upstream = upstream
        self._counters = counters
        self._tcp_connections = 0

    async def serve(self, address: str) -> None:
        """Serves at an address until cancelled; what goes wrong is logged and tried again."""
        wait_seconds = _REBIND_SECONDS_FIRST
        while True:
            started = trio.current_time()
            try:
                await self._serve_once(address)
            except* OSError as group:
                if trio.current_time() - started > _REBIND_SECONDS_MAX:
                    wait_seconds = _REBIND_SECONDS_FIRST
                error = _first_error(group)
                hint = ""
                if error.errno == errno.EADDRINUSE:
                    hint = "; another name server holds it: let that one listen on its own addresses only"
                log.warning(
                    "serve names at %s port %d: %s%s; next try in %.1f s",
                    address,
                    PORT,
                    error,
                    hint,
                    wait_seconds,
                )
            await trio.sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, _REBIND_SECONDS_MAX)

    async def _serve_once(self, address: str) -> None:
        with (
            _open(plain_socket.SOCK_DGRAM, address) as datagrams,
            _open(plain_socket.SOCK_STREAM, address) as listener,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_tcp, listener, nursery)
                await self._serve_udp(datagrams, nursery)

    async def _serve_udp(self, socket: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                data, sender = await socket.recvfrom(message.MESSAGE_BYTES_MAX)
            except ConnectionError:  # an ICMP error about an earlier answer
                continue
            try:
                answer, query = self._answer_own(data, sender[0])
                if answer is not None:
                    if query is not None and len(answer) > query.udp_bytes_max:
                        answer = message.truncated(query)
                    await _send(socket, answer, sender)
                elif query is not None:
                    nursery.start_soon(self._forward_udp, socket, sender, query, data)
            except Exception:
                log.exception("answer a name query from %s", sender[0])

    async def _forward_udp(
        self, socket: trio.socket.SocketType, sender: tuple[str, int], query: Query, data: bytes
    ) -> None:
        try:
            answer = await self._upstream.ask(query, data, tcp=False)
            await _send(socket, answer, sender)
        except Exception:
            log.exception("pass a name query on for %s", sender[0])

    async def _serve_tcp(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            connection, peer = await listener.accept()
            if self._tcp_connections >= TCP_CONNECTIONS_MAX:
                self._counters.dns_refused_count += 1
                connection.close()
                continue
            self._tcp_connections += 1
            nursery.start_soon(self._serve_connection, connection, peer[0])

    async def _serve_connection(self, socket: trio.socket.SocketType, peer: str) -> None:
        try:
            with socket, trio.move_on_after(TCP_IDLE_SECONDS_MAX) as idle:
                stream = trio.SocketStream(socket)
                for _ in range(TCP_QUERIES_PER_CONNECTION_MAX):
                    data = await _receive_message(stream)
                    if data is None:
                        return
                    idle.deadline = trio.current_time() + TCP_IDLE_SECONDS_MAX
                    answer, query = self._answer_own(data, peer)
                    if answer is None and query is not None:
                        answer = await self._upstream.ask(query, data, tcp=True)
                    if answer is None:
                        return
                    await stream.send_all(struct.pack(">H", len(answer)) + answer)
        except (OSError, trio.BrokenResourceError):
            pass  # the asker is gone
        except Exception:
            log.exception("answer a name query over TCP from %s", peer)
        finally:
            self._tcp_connections -= 1

    def _answer_own(self, data: bytes, asker: str) -> tuple[bytes | None, Query | None]:
        """The answer if it is ours to give; else the query to pass on, or nothing at all."""
        self._counters.dns_query_count += 1
        try:
            query = message.read_query(data)
        except MalformedMessage:
            return message.write_error(data, message.FORMAT_ERROR), None
        if not query.standard:
            return message.write_response(query, message.NOT_IMPLEMENTED), query
        if query.name.endswith(".in-addr.arpa"):
            resolution = self._names.reverse(query.name, asker)
        else:
            resolution = self._names.resolve(query.name, asker, query.identifier)
        if resolution.outcome is Outcome.FOREIGN:
            return None, query
        records = []
        if query.record_class == message.CLASS_IN:
            if query.kind in (message.TYPE_A, message.TYPE_ANY):
                records = [message.address_record(address) for address in resolution.addresses]
            elif query.kind == message.TYPE_PTR and resolution.name:
                records = [(message.TYPE_PTR, message.write_name(resolution.name))]
        return message.write_response(query, _CODES[resolution.outcome], records, OWN_TTL_SECONDS), query


def _open(kind: int, address: str) -> trio.socket.SocketType:
    """A bound socket; it may be bound before the address is there, and stays when that is repaired."""
    socket = trio.socket.socket(plain_socket.AF_INET, kind)
    try:
        socket.setsockopt(plain_socket.SOL_IP, _IP_FREEBIND, 1)
        if kind == plain_socket.SOCK_STREAM:
            socket.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_REUSEADDR, 1)
        else:
            socket.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        _bind(socket, address)
        if kind == plain_socket.SOCK_STREAM:
            socket.listen(TCP_CONNECTIONS_MAX)
    except BaseException:
        socket.close()
        raise
    return socket


def _bind(socket: trio.socket.SocketType, address: str) -> None:
    # trio's own bind is async only because of names; an address needs no look-up.
    plain = plain_socket.socket(fileno=socket.fileno())
    try:
        plain.bind((address, PORT))
    finally:
        plain.detach()


async def _send(socket: trio.socket.SocketType, answer: bytes, to: tuple[str, int]) -> None:
    try:
        await socket.sendto(answer, to)
    except OSError as error:
        log.debug("answer %s: %s", to[0], error)


async def _receive_message(stream: trio.SocketStream) -> bytes | None:
    length = await _receive_exactly(stream, 2)
    return None if length is None else await _receive_exactly(stream, int.from_bytes(length, "big"))


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def _first_error(group: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, OSError) else OSError(str(error))
