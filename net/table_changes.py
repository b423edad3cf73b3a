"""Listens to nfnetlink for changes of our nftables table by others, so that the check looks at once; only a hint.

Each transaction is told of in messages of their own, in datagrams that name who asked for it: those of our own
transactions are passed over unread, even where 20,000 elements made them many.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from net.netlink import PROTOCOL_NETFILTER, own_ports
from net.notifications import Notifications
from net.outside_changes_plan import concerns_table

SETTLE_SECONDS = 0.05
_GROUPS = 1 << 7 - 1  # NFNLGRP_NFTABLES is 7


class TableChanges:
    """Subscribes in the network namespace of the thread that makes it; raises KernelRefused."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._told = Notifications(PROTOCOL_NETFILTER, _GROUPS, "listen to changes of nftables")

    def close(self) -> None:
        self._told.close()

    async def listen(self, on_change: Callable[[], None]) -> None:
        """Calls `on_change` after changes by others, at most every SETTLE_SECONDS, until cancelled."""
        while True:
            await self._told.wait()
            if self._read():
                on_change()
            await trio.sleep(SETTLE_SECONDS)

    def _read(self) -> bool:
        """Empties the socket. Where datagrams were lost it is a change: the generation says cheaply if it was none."""
        changed = False
        for data in self._told.read():
            changed = changed or data is None or concerns_table(data, self._table, own_ports)
        return changed
