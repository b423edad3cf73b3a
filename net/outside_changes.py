"""Listens to rtnetlink for changes of what is ours by others, so that the check looks at once.

A hint and no more: what is missed or misread here, the periodic check finds.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import trio

from net.addresses import tunnel_interface, wireguard_interfaces
from net.netlink import PROTOCOL_ROUTE, own_ports
from net.notifications import Notifications
from net.outside_changes_plan import Ours, concerns, may_concern
from net.pyroute2_messages import LinkEvents, rtnl

SETTLE_SECONDS = 0.1  # one change seldom comes alone
_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_NEIGH
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV4_RULE
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV6_ROUTE
    | rtnl.RTMGRP_IPV6_RULE
)


class _Events(LinkEvents):
    """Decodes only what may be ours."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        self._ours = ours

    def parse_one_message(self, key: int, flags: int, sequence: int, data: bytes, offset: int, length: int) -> Any:
        if not may_concern(key, data, offset, self._ours):
            return None
        return super().parse_one_message(key, flags, sequence, data, offset, length)


class OutsideChanges:
    """Subscribes in the network namespace of the thread that makes it; raises KernelRefused."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._told = Notifications(PROTOCOL_ROUTE, _GROUPS, "listen to changes of the network")

    def close(self) -> None:
        self._told.close()

    async def listen(self, on_change: Callable[[], None]) -> None:
        """Calls `on_change` after changes by others, at most every SETTLE_SECONDS, until cancelled."""
        while True:
            await self._told.wait()
            await trio.sleep(SETTLE_SECONDS)
            if self._read():
                on_change()

    def _read(self) -> bool:
        """Empties the socket; after the first message that counts the others need no decoding."""
        wireguard = tuple(number for name in wireguard_interfaces(self._prefix) if (number := _number(name)))
        ours = Ours(self._prefix, _number(tunnel_interface(self._prefix)), own_ports, wireguard)
        events = _Events(ours)
        changed = False
        for data in self._told.read():
            changed = changed or data is None or any(concerns(message, ours) for message in events.parse(data))
        return changed


def _number(name: str) -> int:
    """0 where there is no such device, for instance because it was just deleted."""
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(name)
    return 0
