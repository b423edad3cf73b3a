"""gRPC channels to the other hosts, one a host, authenticated by node id and not by address."""

from __future__ import annotations

import logging
from collections.abc import Callable

import grpc

from proto.grpc_trio import call
from proto.host_pb2_grpc import HostStub

logger = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 64 << 20
KEEPALIVE_MS = 5_000
KEEPALIVE_TIMEOUT_MS = 3_000
RECONNECT_BACK_OFF_MS_MAX = 1_000

OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_BACK_OFF_MS_MAX),
    # Hosts of a cluster talk to each other directly, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def target(address: str, port: int) -> str:
    """gRPC target of an IP address, v6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Peers:
    """Channels by node id; one is replaced where the host's address or our certificate changes."""

    def __init__(self, credentials: Callable[[], grpc.ChannelCredentials]) -> None:
        self._credentials = credentials
        self._channels: dict[str, tuple[str, grpc.aio.Channel]] = {}
        self._retired: list[grpc.aio.Channel] = []  # grows by one a host each renewal, every two months

    def channel(self, node_id: str, address: str, port: int) -> grpc.aio.Channel:
        """The channel to a host; it connects when it is first used. Only from the gRPC thread."""
        where = target(address, port)
        known = self._channels.get(node_id)
        if known is not None and known[0] == where:
            return known[1]
        options = [*OPTIONS, ("grpc.ssl_target_name_override", f"{node_id}.node.fairway")]
        channel = grpc.aio.secure_channel(where, self._credentials(), options=options)
        self._channels[node_id] = (where, channel)
        return channel

    def host(self, node_id: str, address: str, port: int) -> HostStub:
        """The host-to-host service of a host."""
        return HostStub(self.channel(node_id, address, port))

    def renew(self) -> None:
        """Our certificate was renewed: channels are made anew at their next use, calls under way go on."""
        self._retired += [channel for _, channel in self._channels.values()]
        self._channels.clear()

    async def forget(self, node_id: str) -> None:
        """Closes the channel to a host; the next use opens another."""
        known = self._channels.pop(node_id, None)
        if known is not None:
            await call(known[1].close(None))

    async def close(self) -> None:
        """Closes all channels."""
        for channel in self._retired:
            await call(channel.close(None))
        self._retired.clear()
        for node_id in list(self._channels):
            await self.forget(node_id)
