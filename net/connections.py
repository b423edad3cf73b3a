"""Makes the kernel forget connections to tasks that are withdrawn or gone (conntrack over netlink).

Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`; deletion by a filter is in
kernels from 5.8 on.
"""

from __future__ import annotations

import socket
import struct

from net.netlink import PROTOCOL_NETFILTER, Netlink, Request, attribute, nest, u8, u32
from net.route_messages import pack_address

UDP = socket.IPPROTO_UDP
_DELETE = (1 << 8) | 2
_HEADER = struct.Struct(">BBH")
_TUPLE_REPLY, _FILTER = 2, 25
_FILTER_SOURCE, _FILTER_PROTOCOL = 1 << 0, 1 << 3


def forget_request(address: str, protocol: int | None) -> Request:
    """Forgets every connection that `address` answers, of one IP protocol or (None) of all."""
    parts = nest(1, attribute(1, pack_address(address)))
    flags = _FILTER_SOURCE
    if protocol is not None:
        parts += nest(2, u8(1, protocol))
        flags |= _FILTER_PROTOCOL
    # Version 1 of the header makes the kernel look at the family given.
    body = _HEADER.pack(socket.AF_INET, 1, 0) + nest(_TUPLE_REPLY, parts)
    body += nest(_FILTER, u32(1, 0) + u32(2, flags))
    return Request(_DELETE, 0, body, f"forget connections to {address}")


class Connections:
    """Not safe for several threads at once."""

    def __init__(self) -> None:
        self._netlink = Netlink(PROTOCOL_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def forget(self, withdrawn: list[str], gone: list[str]) -> list[str]:
        """UDP of withdrawn addresses, everything of gone ones; returns what the kernel refused, in words.

        Established TCP connections of a withdrawn task go on until it stops.
        """
        requests = [forget_request(address, UDP) for address in withdrawn]
        requests += [forget_request(address, None) for address in gone]
        return [str(error) for _, error in self._netlink.ask_all(requests)]
