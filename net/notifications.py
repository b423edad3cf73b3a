"""What the kernel tells by netlink without being asked, as datagrams; only ever a hint to look again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import trio

from net.errors import KernelRefused

_DATAGRAMS_MAX = 1024  # read in one go; the rest after the next wait
_DATAGRAM_BYTES_MAX = 1 << 16


class Notifications:
    """Subscribes in the network namespace of the thread that makes it; raises KernelRefused."""

    def __init__(self, protocol: int, groups: int, asked: str) -> None:
        """`groups`: a bit for each (`nl_groups` of netlink(7)). `asked`: for which purpose, in words for an error."""
        self._asked = asked
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        except OSError as error:
            raise KernelRefused(asked, error.errno or errno.EIO) from error
        try:
            self._socket.bind((0, groups))
        except OSError as error:
            self.close()
            raise KernelRefused(asked, error.errno or errno.EIO) from error

    def close(self) -> None:
        self._socket.close()

    async def wait(self) -> None:
        """Until there is something to read."""
        await trio.lowlevel.wait_readable(self._socket)

    def read(self) -> Iterator[bytes | None]:
        """The datagrams that are there; None where the kernel had to drop some: anything may have changed."""
        for _ in range(_DATAGRAMS_MAX):
            try:
                data = self._socket.recv(_DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelRefused(self._asked, error.errno or errno.EIO) from error
                yield None
                continue
            yield data
