"""Listens to nfnetlink for changes of our nftables table by others, so that the check looks at once; only a hint.

Each transaction is told of in messages of their own, in datagrams that name who asked for it: those of our own
transactions are passed over unread, even where 20,000 elements made them many.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import trio

from net.errors import KernelRefused
from net.netlink import PROTOCOL_NETFILTER, own_ports
from net.outside_changes_plan import concerns_table

SETTLE_SECONDS = 0.05
_GROUP = 7  # NFNLGRP_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_DATAGRAMS_MAX = 1024  # read in one go; the rest after the next wait
_DATAGRAM_BYTES_MAX = 1 << 16
_ASKED = "listen to changes of nftables"


class TableChanges:
    """Subscribes in the network namespace of the thread that makes it; raises KernelRefused."""

    def __init__(self, table: str) -> None:
        self._table = table
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, PROTOCOL_NETFILTER)
        except OSError as error:
            raise KernelRefused(_ASKED, error.errno or errno.EIO) from error
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError as error:
            self._socket.close()
            raise KernelRefused(_ASKED, error.errno or errno.EIO) from error

    def close(self) -> None:
        self._socket.close()

    async def listen(self, on_change: Callable[[], None]) -> None:
        """Calls `on_change` after changes by others, at most every SETTLE_SECONDS, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            if self._read():
                on_change()
            await trio.sleep(SETTLE_SECONDS)

    def _read(self) -> bool:
        changed = False
        for _ in range(_DATAGRAMS_MAX):
            try:
                data = self._socket.recv(_DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelRefused(_ASKED, error.errno or errno.EIO) from error
                changed = True  # some were lost: anything may have changed, which the generation tells cheaply
                continue
            changed = changed or concerns_table(data, self._table, own_ports)
        return changed
