"""Holds the floating addresses that the cluster gave to this host, for as long as it is known to count as up.

The leader moves an address when it has not heard of its host for `host_down_ms`. It hears a report after that was
sent, so an address that goes within `host_down_ms` of the sending of the last report that was acknowledged has gone
before another host takes it. The kernel itself drops it then (net/floating_addresses.py), whatever fairwayd does.
"""

from __future__ import annotations

import logging

import trio

from daemon.agent.host_view import HostView
from net.errors import NetworkError
from net.floating_addresses import FloatingAddresses
from net.floating_plan import valid_seconds

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.25  # while an address is held
ANNOUNCE_AFTER_S = (0.0, 0.3, 1.0, 3.0)  # an announcement may be lost


class FloatingAgent:
    """`run` it beside the session with the leader, which says what was acknowledged."""

    def __init__(self, view: HostView, node_id: str, lease_s: float) -> None:
        self._view = view
        self._node_id = node_id
        self._lease_s = lease_s
        self._kernel = FloatingAddresses()
        self._acknowledged_s: float | None = None  # when the last report was sent that was acknowledged
        self._held_since_s: float | None = None
        self._given: list[str] = []  # by the cluster, at the last look
        self._wake = trio.Event()
        self._problems: list[str] = []

    def changed(self) -> None:
        """The view has changed."""
        self._wake.set()

    def acknowledged(self, sent_s: float) -> None:
        """The leader heard the report that was sent at that time (trio's clock)."""
        self._acknowledged_s = sent_s
        if self._given or self._kernel.held:
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then the addresses go when their time is over."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                taken = await self._hold()
                for address in taken:
                    nursery.start_soon(self._announce, address)
                with trio.move_on_after(LOOK_INTERVAL_S if self._kernel.held else float("inf")):
                    await self._wake.wait()

    async def _hold(self) -> list[str]:
        """Addresses that are new here."""
        own, before = self._view.node(self._node_id), self._kernel.held
        self._given = self._own_addresses()
        remaining_s = 0.0
        if self._acknowledged_s is not None:
            remaining_s = self._acknowledged_s + self._lease_s - trio.current_time()
        wanted = {}
        if own is not None and remaining_s > LOOK_INTERVAL_S:
            seconds = valid_seconds(remaining_s)
            news = self._acknowledged_s != self._held_since_s
            wanted = {each: seconds if news or each not in before else 0 for each in self._given}
        self._held_since_s = self._acknowledged_s
        try:
            address = own.address if own is not None else ""
            taken, problems = await trio.to_thread.run_sync(self._kernel.hold, wanted, address)
        except NetworkError as error:
            taken, problems = [], [str(error)]
        for each in problems:
            if each not in self._problems:
                logger.warning("%s", each)
        self._problems = problems
        for each in sorted(before - self._kernel.held):
            logger.info("floating address %s is not here any more", each)
        return taken

    def _own_addresses(self) -> list[str]:
        return [
            key.partition("/")[2]
            for key, item in self._view.items_of("floating")
            if item.floating.holder_id == self._node_id
        ]

    async def _announce(self, address: str) -> None:
        logger.info("floating address %s is here now", address)
        started_s = trio.current_time()
        for after_s in ANNOUNCE_AFTER_S:
            await trio.sleep_until(started_s + after_s)
            if address not in self._kernel.held:
                return
            try:
                self._kernel.announce(address)
            except NetworkError as error:
                logger.warning("%s", error)
