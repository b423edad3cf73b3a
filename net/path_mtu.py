"""Finds out how large packets the path to each host carries, and has the routes say so.

Without it a path with a smaller MTU, whose routers do not say so, swallows every large packet of a connection for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import trio

from net.model import DesiredNetwork, Host
from net.path_mtu_plan import (
    COPIES,
    PROBE_SECONDS_MAX,
    ROUND_SECONDS,
    SEARCH_AGAIN_SECONDS,
    Reduced,
    largest_bytes,
    least_bytes,
    narrowed,
    route_mtu_bytes,
    sample,
    search_probe_seconds,
    sections,
)
from net.probe_plan import ring

log = logging.getLogger(__name__)

# Seconds until an address answered a packet of so many bytes that must not be cut, or None: (address, bytes, seconds).
Probe = Callable[[str, int, float], Awaitable[float | None]]
# (desired, MTU of the overlay, MTU of the underlay's interface); None before the first is applied.
Sizes = Callable[[], tuple[DesiredNetwork, int, int] | None]


class PathMtu:
    """Of one host. `apply` gets the MTU of the overlay's routes by node id; hosts with a whole path are not in it."""

    def __init__(self, probe: Probe, sizes: Sizes, apply: Callable[[Mapping[str, int]], Awaitable[None]]) -> None:
        self.reduced: dict[str, Reduced] = {}  # by node id
        self._probe = probe
        self._sizes = sizes
        self._apply = apply
        self._applied: dict[str, int] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        number = 0
        while True:
            await trio.sleep(ROUND_SECONDS)
            sizes = self._sizes()
            if sizes is not None:
                await self.round(number, *sizes)
                number += 1

    async def round(self, number: int, desired: DesiredNetwork, overlay_bytes: int, underlay_bytes: int) -> None:
        """Looks at some paths at the same time, and has the routes follow."""
        others = ring(desired.local, desired.hosts)
        known = {host.node_id for host in others}
        for node_id in self.reduced.keys() - known:
            del self.reduced[node_id]
        largest = largest_bytes(desired, overlay_bytes, underlay_bytes)
        async with trio.open_nursery() as nursery:
            for host in sample(others, number, self.reduced):
                nursery.start_soon(self._look, host, largest)
        wanted = {node_id: route_mtu_bytes(desired, each.packet_bytes) for node_id, each in self.reduced.items()}
        if wanted != self._applied:
            await self._apply(wanted)
            self._applied = wanted

    async def _look(self, host: Host, largest: int) -> None:
        before = self.reduced.get(host.node_id)
        if await self._answers(host, largest, copies=1) is not None:
            self._note(host, None)
            return
        now = trio.current_time()
        if before is not None and before.packet_bytes < largest:
            rested = now - before.searched_at_seconds < SEARCH_AGAIN_SECONDS
            if rested and await self._answers(host, before.packet_bytes) is not None:
                return
        least = least_bytes(host)
        rtt_seconds = await self._answers(host, least)
        if rtt_seconds is None:
            return  # nothing gets through: the path is down, which says nothing of its MTU
        if await self._answers(host, largest) is not None:
            self._note(host, None)
            return
        seconds = search_probe_seconds(rtt_seconds)
        self._note(host, Reduced(await self._search(host, least, largest, seconds), now))

    async def _search(self, host: Host, through: int, swallowed: int, seconds: float) -> int:
        while tried := sections(through, swallowed):
            answered: set[int] = set()
            async with trio.open_nursery() as nursery:
                for size in tried:
                    nursery.start_soon(self._try, host, size, seconds, answered)
            through, swallowed = narrowed(tried, answered, through, swallowed)
        return through

    async def _try(self, host: Host, size: int, seconds: float, answered: set[int]) -> None:
        if await self._answers(host, size, seconds) is not None:
            answered.add(size)

    async def _answers(
        self, host: Host, packet_bytes: int, seconds: float = PROBE_SECONDS_MAX, copies: int = COPIES
    ) -> float | None:
        """Seconds until the first of several copies was answered: a lost packet is not a swallowed one."""
        found: list[float] = []

        async def one() -> None:
            answer = await self._probe(host.address, packet_bytes, seconds)
            if answer is not None:
                found.append(answer)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(copies):
                nursery.start_soon(one)
        return found[0] if found else None

    def _note(self, host: Host, found: Reduced | None) -> None:
        before = self.reduced.get(host.node_id)
        if found is None:
            if before is not None:
                del self.reduced[host.node_id]
                log.warning("the path to %s carries packets of full size again", host.name)
            return
        self.reduced[host.node_id] = found
        if before is None or before.packet_bytes != found.packet_bytes:
            log.warning(
                "the path to %s at %s swallows packets of more than %d bytes; packets to its tasks are kept smaller",
                host.name,
                host.address,
                found.packet_bytes,
            )
