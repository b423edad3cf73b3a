"""Two namespaces with a switch between them that can be told to swallow large packets, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import trio
from trio._core import _thread_cache

from net.namespaces import within_namespace
from tests.net.held_namespaces import HeldNamespaces
from tests.net.world import shell, wait_until_carried

T = TypeVar("T")

ADDRESSES = ("198.51.100.1", "198.51.100.2")
ADDRESSES_V6 = ("2001:db8::1", "2001:db8::2")


class Pair:
    def __init__(self) -> None:
        self._namespaces = HeldNamespaces()
        try:
            self.switch, self.one, self.other = (self._namespaces.new() for _ in range(3))
            shell(self.switch, "ip link add br0 type bridge; ip link set br0 up")
            for number, namespace in enumerate((self.one, self.other)):
                shell(
                    self.switch,
                    f"ip link add p{number} type veth peer name eth0 netns {namespace.parts[2]}; "
                    f"ip link set p{number} master br0 up",
                )
                shell(
                    namespace,
                    f"ip link set lo up; ip addr add {ADDRESSES[number]}/24 dev eth0; "
                    f"ip addr add {ADDRESSES_V6[number]}/64 dev eth0 nodad; ip link set eth0 up",
                )
                wait_until_carried(self.switch, f"p{number}")
            self.swallow(0)
        except BaseException:
            self.close()
            raise

    def swallow(self, above_bytes: int, where: str = "") -> None:
        """IP packets with more bytes vanish without a word, all or those that match `where`; 0: none."""
        rule = f"nft add rule bridge hole forward {where} meta length gt {above_bytes} drop" if above_bytes else ":"
        shell(
            self.switch,
            "nft add table bridge hole; nft flush table bridge hole; "
            f"nft add chain bridge hole forward '{{ type filter hook forward priority 0; }}'; {rule}",
        )

    def within(self, namespace: Path, work: Callable[[], Awaitable[T]]) -> T:
        """Runs a trio program in one of the namespaces."""

        async def main() -> T:
            return await work()

        # Threads that are started there belong to the namespace, and trio keeps them for the next who asks: members of
        # Raft of later tests came to run there, and reached nobody.
        kept, _thread_cache.THREAD_CACHE = _thread_cache.THREAD_CACHE, _thread_cache.ThreadCache()
        try:
            return within_namespace(namespace, lambda: trio.run(main))
        finally:
            _thread_cache.THREAD_CACHE = kept

    def close(self) -> None:
        self._namespaces.close()


@contextlib.contextmanager
def running_pair() -> Iterator[Pair]:
    pair = Pair()
    try:
        yield pair
    finally:
        pair.close()
