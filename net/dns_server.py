"""The name server of a host: UDP and TCP at the tasks' gateway address and at the host's tunnel address."""

from __future__ import annotations

import errno
import logging
import socket as plain_socket

import trio

from net.dns_answers import Answers
from net.dns_tcp import CONNECTIONS_MAX, TcpService
from net.dns_udp import UdpService
from net.dns_upstream import Upstream
from net.model import Counters

log = logging.getLogger(__name__)

PORT = 53
_REBIND_SECONDS_FIRST, _REBIND_SECONDS_MAX = 0.5, 30.0
_IP_FREEBIND = 15
_RECEIVE_BUFFER_BYTES = 1 << 20


class NameServer:
    """Answers from `answers` at once and hands the rest to `upstream`, which must be running."""

    def __init__(self, answers: Answers, upstream: Upstream, counters: Counters) -> None:
        self._answers = answers
        self._upstream = upstream
        self._counters = counters
        self._tcp = TcpService(answers, upstream, counters)

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
            trio.socket.from_stdlib_socket(_open(plain_socket.SOCK_STREAM, address)) as listener,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tcp.run, listener)
                nursery.start_soon(UdpService(datagrams, self._answers, self._upstream, self._counters).run)


def _open(kind: int, address: str) -> plain_socket.socket:
    """A bound socket; it may be bound before the address is there, and stays when that is repaired."""
    socket = plain_socket.socket(plain_socket.AF_INET, kind)
    try:
        socket.setsockopt(plain_socket.SOL_IP, _IP_FREEBIND, 1)
        if kind == plain_socket.SOCK_STREAM:
            socket.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_REUSEADDR, 1)
        else:
            socket.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        socket.bind((address, PORT))
        if kind == plain_socket.SOCK_STREAM:
            socket.listen(CONNECTIONS_MAX)
    except BaseException:
        socket.close()
        raise
    return socket


def _first_error(group: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, OSError) else OSError(str(error))
