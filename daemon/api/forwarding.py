"""Operators may talk to any voter: one that does not lead passes their calls on to the one that does.

The message bytes go through unread. The leader trusts the name of the operator that a voter passes on,
because only a host of this cluster can call it with a node's certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import trio

from daemon.agent.leader_connection import Leader
from daemon.api.caller import Caller
from daemon.api.grpc_service import Context, Method, Receive, Send
from daemon.errors import Kind, Refused
from daemon.peers import Peers
from proto.grpc_trio import call, patient

CALLER_KEY = "fairway-caller"
CALL_TIMEOUT_S = 60.0
ELECTION_S_MAX = 3.0  # nobody leads for less than that, where a majority is up
LOOK_S = 0.05

NO_LEADER = (
    "no leader: this host hears no majority of the cluster's voters, so it refuses to answer for the cluster "
    "and to change anything. Containers go on running. It comes back by itself when it reaches the others"
)
STOPPED = "this host takes no part in the cluster's decisions: {fault}. Containers go on running"


class Forwarder:
    """Runs an operator's call here where this host leads, else on the leader."""

    def __init__(
        self,
        leads: Callable[[], bool],
        leader: Callable[[], Leader | None],
        fault: Callable[[], str],
        peers: Peers,
        node_id: str,
    ) -> None:
        """`fault` says why this host takes no part in consensus; empty where it does."""
        self._leads = leads
        self._fault = fault
        self._leader = leader
        self._peers = peers
        self._node_id = node_id
        self._lost_s: float | None = None  # since when nobody is known to lead

    async def redirect(
        self, method: Method, caller: Caller, context: Context, receive: Receive, send: Send, request: Any
    ) -> bool:
        """False: run it here. Raises Refused where nobody leads, AioRpcError with the leader's refusal."""
        leader = await self._awaited_leader(_was_forwarded(context))
        if leader is None:
            return False
        channel = self._peers.channel(leader.node_id, leader.address, leader.api_port)
        remaining_s = context.time_remaining()
        options: dict[str, Any] = {
            "metadata": ((CALLER_KEY, caller.actor),),
            "timeout": remaining_s if remaining_s is not None else None,
        }
        streams = (method.descriptor.client_streaming, method.descriptor.server_streaming)
        codec: dict[str, Any] = {
            "request_serializer": lambda message: message.SerializeToString(),
            "response_deserializer": method.reply_class.FromString,
        }
        match streams:
            case (False, False):
                options["timeout"] = options["timeout"] or CALL_TIMEOUT_S
                reply = await call(channel.unary_unary(method.path, **codec)(request, **options))
                await send(reply)
            case (False, True):
                await _copy_out(channel.unary_stream(method.path, **codec)(request, **options), send)
            case (True, False):
                stream: Any = patient(channel.stream_unary(method.path, **codec)(**options))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy_in, stream, receive)
                    await send(await call(stream))  # a refusal may come before the end of what is sent
                    nursery.cancel_scope.cancel()
            case _:
                stream = patient(channel.stream_stream(method.path, **codec)(**options))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy_in, stream, receive)
                    await _copy_out(stream, send)
                    nursery.cancel_scope.cancel()
        return True

    async def _awaited_leader(self, here_only: bool) -> Leader | None:
        """Who leads; None: this host. Raises Refused where nobody does, when there has been time to elect somebody.
        `here_only`: another host has passed the call on, so it goes no further."""
        while True:
            if self._leads():
                self._lost_s = None
                return None
            leader = self._leader()
            elsewhere = leader is not None and leader.node_id != self._node_id
            if elsewhere and not here_only:
                self._lost_s = None
                return leader
            fault, now_s = self._fault(), trio.current_time()
            self._lost_s = now_s if self._lost_s is None else self._lost_s
            if fault or elsewhere or now_s >= self._lost_s + ELECTION_S_MAX:
                raise Refused(STOPPED.format(fault=fault) if fault else NO_LEADER, Kind.UNAVAILABLE)
            await trio.sleep(LOOK_S)


def forwarded_actor(context: Context) -> str:
    """Who called the voter that passed this call on; empty where the call came directly."""
    for key, value in context.invocation_metadata() or ():
        if key == CALLER_KEY:
            return str(value)
    return ""


def _was_forwarded(context: Context) -> bool:
    return bool(forwarded_actor(context))


async def _copy_in(stream: Any, receive: Receive) -> None:
    while (message := await receive()) is not None:
        try:
            await call(stream.write(message))
        except (grpc.aio.UsageError, grpc.aio.AioRpcError, ConnectionAbortedError):
            return  # the call has ended; its status says why
    await call(stream.done_writing())


async def _copy_out(stream: Any, send: Send) -> None:
    try:
        while (message := await call(stream.read())) is not grpc.aio.EOF:
            await send(message)
    finally:
        stream.cancel()
