"""Asks the kernels of hosts that have fallen silent whether they live.

A TCP connection to fairwayd's port is answered by the kernel, whatever fairwayd does: accepted where it hangs or
starts, refused (RFC 9293, 3.10.7.1) where it is not there. A host that has no power, or that a partition cuts off,
answers neither way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import trio

from proto import objects_pb2 as objects

ANSWER_TIMEOUT_S = 1.0
KNOCKS_AT_ONCE_MAX = 64  # the others have their turn at the next look


class Knocking:
    """`answered_s`: node id -> when its kernel answered last, by the clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.answered_s: dict[str, float] = {}
        self._clock = clock
        self._under_way: set[str] = set()

    def knock(self, nursery: trio.Nursery, nodes: Iterable[objects.Node]) -> None:
        """Begins to ask those that are not being asked already; returns at once."""
        for node in nodes:
            if len(self._under_way) >= KNOCKS_AT_ONCE_MAX:
                return
            if node.meta.id not in self._under_way:
                self._under_way.add(node.meta.id)
                nursery.start_soon(self._ask, node.meta.id, node.address, node.api_port)

    async def _ask(self, node_id: str, address: str, port: int) -> None:
        try:
            if await answers(address, port):
                self.answered_s[node_id] = self._clock()
        finally:
            self._under_way.discard(node_id)


async def answers(address: str, port: int) -> bool:
    """Whether a kernel at the IP address accepts or refuses a connection within ANSWER_TIMEOUT_S."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return False
    family = trio.socket.AF_INET6 if version == 6 else trio.socket.AF_INET
    with trio.move_on_after(ANSWER_TIMEOUT_S), trio.socket.socket(family, trio.socket.SOCK_STREAM) as connection:
        try:
            await connection.connect((address, port))
        except ConnectionRefusedError:
            return True
        except OSError:  # no route, no neighbour
            return False
        return True
    return False
