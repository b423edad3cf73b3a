"""Probes of a path by UDP: asks other hosts for an echo, and answers theirs.

The responder listens on all addresses of the host, so that a probe of its underlay address goes the underlay's way and
one of its tunnel address the overlay's; it answers from the address that was asked. It answers only hosts of the
cluster, and no more of them than ANSWERS_PER_SECOND_MAX.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket as plain_socket
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import trio

from net import probe_frame as frames

log = logging.getLogger(__name__)

PROBE_PORT = 7447  # UDP, where nobody chose another
PROBE_SECONDS_MAX = 1.0
PROBES_OPEN_MAX = 256
ANSWERS_PER_SECOND_MAX = 2_000
_DATAGRAMS_A_WAKE_MAX = 64
_RECEIVE_BYTES = 1 << 16
_RECEIVE_BUFFER_BYTES = 1 << 20
_RETRY_SECONDS_FIRST, _RETRY_SECONDS_MAX = 0.5, 30.0

# linux/in.h and linux/in6.h; Python's socket module names few of them.
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_DISCOVER_DONT, _DISCOVER_PROBE = 0, 3  # never DF; always DF, whatever the kernel knows of the path
_IPV6_DONTFRAG = 62
_SO_RCVBUFFORCE = 33
_INFO_4, _INFO_6 = struct.Struct("=I4s4s"), struct.Struct("=16sI")

_UNREACHABLE = (
    errno.EMSGSIZE,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EACCES,
    errno.EPERM,
    errno.EINVAL,
    errno.EADDRNOTAVAIL,
    errno.ECONNREFUSED,
    errno.ENOBUFS,
    errno.EAGAIN,
    errno.ENOKEY,
    errno.EDESTADDRREQ,
)


@dataclass(slots=True)
class _Open:
    """A probe that waits for its answer."""

    address: str
    sent_s: float
    answered: trio.Event = field(default_factory=trio.Event)
    rtt_seconds: float | None = None


class ProbeSocket:
    """One per host. `may_ask` names the addresses that are answered: those of the cluster's hosts."""

    def __init__(self, may_ask: Callable[[], Collection[str]], port: int = PROBE_PORT) -> None:
        self.answered_count = 0
        self.refused_count = 0  # strangers' requests, and those over the limit
        self._may_ask = may_ask
        self._port = port
        self._open: dict[bytes, _Open] = {}
        self._askers: dict[tuple[int, bool], trio.socket.SocketType] = {}
        self._room = trio.Semaphore(PROBES_OPEN_MAX)
        self._allowed = float(ANSWERS_PER_SECOND_MAX)
        self._allowed_at_s = time.monotonic()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answers others and hears answers, until cancelled. `probe` works while this runs."""
        async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for family in _families():
                for dont_fragment in (False, True):
                    asker = stack.enter_context(_asker(family, dont_fragment))
                    self._askers[family, dont_fragment] = asker
                    nursery.start_soon(self._hear, asker)
                await nursery.start(self._respond, family)
            task_status.started()

    async def probe(
        self,
        address: str,
        size_bytes: int = frames.FRAME_BYTES_MIN,
        dont_fragment: bool = False,
        timeout_seconds: float = PROBE_SECONDS_MAX,
    ) -> float | None:
        """Seconds until `address` answered; None where it did not in time, or nothing can be sent there.

        `size_bytes`: of the UDP payload, 24 at least; the packet has 28 more over IPv4 and 48 over IPv6. With
        `dont_fragment` a packet larger than the interface's MTU is not sent at all, and no router cuts it.
        """
        version = ipaddress.ip_address(address).version
        asker = self._askers.get((plain_socket.AF_INET if version == 4 else plain_socket.AF_INET6, dont_fragment))
        if asker is None:
            return None
        async with self._room:
            nonce = os.urandom(frames.NONCE_BYTES)
            self._open[nonce] = waiting = _Open(address, time.monotonic())
            try:
                await asker.sendto(frames.request(nonce, size_bytes), (address, self._port))
                with trio.move_on_after(timeout_seconds):
                    await waiting.answered.wait()
            except OSError as error:
                if error.errno not in _UNREACHABLE:
                    raise
            finally:
                del self._open[nonce]
            return waiting.rtt_seconds

    async def _hear(self, asker: trio.socket.SocketType) -> None:
        while True:
            try:
                data, source = await asker.recvfrom(_RECEIVE_BYTES)
            except OSError:
                continue  # an ICMP error of an earlier probe, which will be found missing
            frame = frames.read(data)
            waiting = self._open.get(frame.nonce) if frame is not None and frame.kind == frames.ANSWER else None
            if waiting is not None and source[1] == self._port and _plain(source[0]) == _plain(waiting.address):
                waiting.rtt_seconds = time.monotonic() - waiting.sent_s
                waiting.answered.set()

    async def _respond(self, family: int, task_status: trio.TaskStatus[None]) -> None:
        wait_seconds = _RETRY_SECONDS_FIRST
        started = False
        while True:
            try:
                with _responder(family, self._port) as responder:
                    wait_seconds = _RETRY_SECONDS_FIRST
                    if not started:
                        started = True
                        task_status.started()
                    while True:
                        await trio.lowlevel.wait_readable(responder)
                        self._answer_waiting(responder)
                        await trio.lowlevel.checkpoint()
            except OSError as error:
                log.warning("answer probes at UDP port %d: %s; next try in %.1f s", self._port, error, wait_seconds)
            if not started:  # asking works all the same
                started = True
                task_status.started()
            await trio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _RETRY_SECONDS_MAX)

    def _answer_waiting(self, responder: plain_socket.socket) -> None:
        """A bounded number of requests that wait, without giving way."""
        known = self._may_ask()
        for _ in range(_DATAGRAMS_A_WAKE_MAX):
            try:
                data, ancillary, _, source = responder.recvmsg(frames.FRAME_BYTES_MIN, plain_socket.CMSG_SPACE(20))
            except BlockingIOError:
                return
            frame = frames.read(data)
            if frame is None or frame.kind != frames.REQUEST:
                continue
            if _plain(source[0]) not in known or not self._allow():
                self.refused_count += 1
                continue
            from_address = _answer_from(ancillary)
            with contextlib.suppress(OSError):  # the asker's way back is down: it will find the answer missing
                responder.sendmsg([frames.answer(frame.nonce)], from_address, 0, source)
                self.answered_count += 1

    def _allow(self) -> bool:
        """A token bucket that holds one second's worth."""
        now_s = time.monotonic()
        earned = (now_s - self._allowed_at_s) * ANSWERS_PER_SECOND_MAX
        self._allowed, self._allowed_at_s = min(self._allowed + earned, float(ANSWERS_PER_SECOND_MAX)), now_s
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


def _families() -> list[int]:
    """IPv6 only where the kernel has it and it is not turned off (ipv6.disable=1)."""
    if Path("/proc/net/if_inet6").exists():
        return [plain_socket.AF_INET, plain_socket.AF_INET6]
    return [plain_socket.AF_INET]


def _asker(family: int, dont_fragment: bool) -> trio.socket.SocketType:
    asker = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
    asker.setsockopt(plain_socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    discover = _DISCOVER_PROBE if dont_fragment else _DISCOVER_DONT
    if family == plain_socket.AF_INET:
        asker.setsockopt(plain_socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
    else:
        asker.setsockopt(plain_socket.IPPROTO_IPV6, plain_socket.IPV6_V6ONLY, 1)
        asker.setsockopt(plain_socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, discover)
        asker.setsockopt(plain_socket.IPPROTO_IPV6, _IPV6_DONTFRAG, int(dont_fragment))
    return asker


def _responder(family: int, port: int) -> plain_socket.socket:
    responder = plain_socket.socket(family, plain_socket.SOCK_DGRAM | plain_socket.SOCK_NONBLOCK)
    try:
        responder.setsockopt(plain_socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        if family == plain_socket.AF_INET:
            responder.setsockopt(plain_socket.IPPROTO_IP, _IP_PKTINFO, 1)
            responder.bind(("", port))
        else:
            responder.setsockopt(plain_socket.IPPROTO_IPV6, plain_socket.IPV6_V6ONLY, 1)
            responder.setsockopt(plain_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            responder.bind(("", port))
    except OSError:
        responder.close()
        raise
    return responder


def _answer_from(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The control message that makes the answer leave from the address that was asked (ip(7), ipv6(7))."""
    for level, kind, data in ancillary:
        if (level, kind) == (plain_socket.IPPROTO_IP, _IP_PKTINFO):
            _, _, asked = _INFO_4.unpack(data[: _INFO_4.size])
            return [(level, kind, _INFO_4.pack(0, asked, bytes(4)))]
        if (level, kind) == (plain_socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            asked, interface = _INFO_6.unpack(data[: _INFO_6.size])
            link_local = ipaddress.IPv6Address(asked).is_link_local
            return [(level, kind, _INFO_6.pack(asked, interface if link_local else 0))]
    return []


def _plain(address: str) -> str:
    """Without the zone of a link-local address, in the one form that Python gives."""
    return str(ipaddress.ip_address(address.partition("%")[0]))
