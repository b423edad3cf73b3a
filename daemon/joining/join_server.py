"""The join port: lets hosts with a token in. The leader answers; other voters relay raw bytes to it.

One exchange a connection, TLS 1.3 with this node's certificate: greeting, request, reply (proto/host.proto).
A relayed exchange is encrypted from the host to the leader; the relaying voter sees none of it.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from daemon.errors import Kind, Refused
from daemon.identity.identity import Identity
from daemon.identity.tls import NodeTls
from daemon.joining.join_frames import REQUEST_BYTES_MAX, FrameError, receive_frame, send_frame
from daemon.joining.join_limits import JoinLimits, WrongTokens
from daemon.joining.join_relay import relay
from proto import host_pb2

logger = logging.getLogger(__name__)

_ACCEPT_BACK_OFF_S = 0.2
_CLOSE_S_MAX = 1.0
_BACKLOG = 64

# On the leader: adds the host to the cluster. Raises Refused; DENIED for a token that is wrong.
Register = Callable[[host_pb2.JoinRequest, str], Awaitable[host_pb2.JoinReply]]


@dataclass(frozen=True)
class LeaderPlace:
    """Who leads, and where its join port is."""

    node_id: str
    address: str
    join_port: int


class JoinServer:
    """Serves the join port of a voter.

    `leader` says at each connection who leads, None where nobody is known to; `register(request, address of
    the peer)` is called only while this node leads.
    """

    def __init__(
        self,
        identity: Identity,
        register: Register,
        leader: Callable[[], LeaderPlace | None],
        limits: JoinLimits | None = None,
    ) -> None:
        self._identity = identity
        self._tls = NodeTls(identity)
        self._register = register
        self._leader = leader
        self._limits = limits if limits is not None else JoinLimits()
        self._wrong_tokens = WrongTokens(self._limits)
        self._open: Counter[str] = Counter()  # connections by peer's address

    async def run(
        self, listen_address: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until cancelled; reports the port once it listens (port 0: any free one).

        Raises Refused (NOT_POSSIBLE) where the port cannot be opened.
        """
        listener = await _listen(listen_address, port)
        async with trio.open_nursery() as nursery, listener:
            task_status.started(listener.socket.getsockname()[1])
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # out of descriptors or memory: others will end and give theirs back
                    logger.error("cannot accept connections of joining hosts: %s", error)
                    await trio.sleep(_ACCEPT_BACK_OFF_S)
                    continue
                nursery.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                address = str(stream.socket.getpeername()[0]).removeprefix("::ffff:")
            except OSError:
                return  # gone before it was looked at
            if self._open.total() >= self._limits.connections_max or (
                self._open[address] >= self._limits.connections_per_address_max
            ):
                logger.warning("too many connections to the join port: one from %s was closed", address)
                return
            self._open[address] += 1
            try:
                await self._answer_or_relay(stream, address)
            except (FrameError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                logger.info("the connection of %s to the join port failed: %s", address, _cause(error))
            except Exception:
                logger.exception("answering %s on the join port failed", address)
            finally:
                self._open[address] -= 1
                if self._open[address] <= 0:
                    del self._open[address]

    async def _answer_or_relay(self, stream: trio.SocketStream, address: str) -> None:
        place = self._leader()
        if place is None:
            await self._answer(stream, address, "the cluster has no leader at the moment; try again in some seconds")
        elif place.node_id == self._identity.node_id:
            await self._answer(stream, address, "")
        elif place.address == address:
            # Each of two voters takes the other for the leader: do not send the bytes round in a circle.
            await self._answer(stream, address, "the cluster is just choosing its leader; try again in some seconds")
        else:
            try:
                with trio.fail_after(self._limits.relay_connect_ms_max / 1000):
                    upstream = await trio.open_tcp_stream(place.address, place.join_port)
            except (OSError, trio.TooSlowError) as error:
                logger.warning("cannot relay a join to the leader at %s: %s", place.address, error)
                where = f"{place.address} port {place.join_port}"
                problem = f"the leader at {where} cannot be reached from here; try again"
                await self._answer(stream, address, problem)
                return
            await relay(stream, upstream, self._limits.relay_bytes_max, self._limits.relay_ms_max)

    async def _answer(self, stream: trio.SocketStream, address: str, problem: str) -> None:
        """The whole exchange; with a `problem` that is the reply, whatever the host asks."""
        secure = trio.SSLStream(stream, self._tls.join_server_context(), server_side=True)
        with trio.move_on_after(self._limits.exchange_ms_max / 1000) as scope:
            await send_frame(secure, host_pb2.JoinGreeting(ca_certificate_pem=self._identity.ca_pem))
            request = await receive_frame(secure, host_pb2.JoinRequest, REQUEST_BYTES_MAX)
        if scope.cancelled_caught:
            logger.info("%s was too slow on the join port", address)
            return
        reply = host_pb2.JoinReply(error=problem) if problem else await self._reply(request, address)
        with trio.move_on_after(self._limits.exchange_ms_max / 1000):
            await send_frame(secure, reply)
        with trio.move_on_after(_CLOSE_S_MAX):
            await secure.aclose()

    async def _reply(self, request: host_pb2.JoinRequest, address: str) -> host_pb2.JoinReply:
        wait_ms = self._wrong_tokens.wait_ms(address, trio.current_time() * 1000)
        if wait_ms > 0:
            seconds = f"{wait_ms / 1000:.0f} seconds"
            return host_pb2.JoinReply(error=f"too many wrong tokens came from {address}; try again in {seconds}")
        try:
            with trio.fail_after(self._limits.register_ms_max / 1000):
                return await self._register(request, address)
        except Refused as refused:
            if refused.kind is Kind.DENIED:
                self._wrong_tokens.note(address, trio.current_time() * 1000)
            logger.info("%s (%r) was not let in: %s", address, request.name[:64], refused.message)
            return host_pb2.JoinReply(error=refused.message)
        except trio.TooSlowError:
            return host_pb2.JoinReply(error="the cluster did not commit the new host in time; try again")


async def _listen(address: str, port: int) -> trio.SocketListener:
    try:
        if address == "::" and socket.has_dualstack_ipv6():
            both = socket.create_server((address, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
            return trio.SocketListener(trio.socket.from_stdlib_socket(both))
        anywhere = None if address == "::" else address
        listeners = await trio.open_tcp_listeners(port, host=anywhere, backlog=_BACKLOG)
    except OSError as error:
        reason = "another program has it" if error.errno == errno.EADDRINUSE else str(error)
        raise Refused(
            f"the join port {port} cannot be opened on {address}: {reason}; set [join] port in the configuration",
            Kind.NOT_POSSIBLE,
        ) from error
    return listeners[0]


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error) or type(error).__name__
