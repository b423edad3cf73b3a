"""Notices that this host has another address, and makes what hangs on the old one new at once.

Its own session with the leader brings the new address into the state, and the state brings it to all hosts. Connections
from the old address are dead, although TCP takes long to say so: those of this host are closed here. Where this
host leads, the others' sessions hang on its old address: it tells them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import grpc
import trio

from daemon.peers import Peers
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2 import LeaderMovedRequest

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
LOOK_INTERVAL_S_MIN = 0.1
TELL_TIMEOUT_S = 1.0
TOLD_AT_ONCE_MAX = 32


async def follow_own_address(
    address: Callable[[], str],
    wait_touched: Callable[[], Awaitable[None]],
    moved: Callable[[str], Awaitable[None]],
) -> None:
    """Calls `moved` with each new address until cancelled. `wait_touched` returns when one may have changed."""
    known = address()
    while True:
        with trio.move_on_after(LOOK_INTERVAL_S):
            await wait_touched()
        now = address()
        if now != known:
            logger.warning("this host has the address %s now, before it had %s", now, known)
            known = now
            await moved(now)
        await trio.sleep(LOOK_INTERVAL_S_MIN)


async def tell_hosts(peers: Peers, nodes: Iterable[objects.Node], address: str, api_port: int) -> None:
    """Has every host hold its session with this leader at its new address. One that is not reached finds it later."""
    limit = trio.CapacityLimiter(TOLD_AT_ONCE_MAX)
    request = LeaderMovedRequest(address=address, api_port=api_port)

    async def tell(node: objects.Node) -> None:
        async with limit:
            stub = peers.host(node.meta.id, node.address, node.api_port)
            try:
                await call(stub.LeaderMoved(request, timeout=TELL_TIMEOUT_S))  # type: ignore[arg-type]
            except grpc.aio.AioRpcError as error:
                logger.info("%s was not told of this leader's new address: %s", node.meta.name, error.details())

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(tell, node)
