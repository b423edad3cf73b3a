"""At which addresses and ports a namespace is listened on (sock_diag(7); include/uapi/linux/inet_diag.h)."""

from __future__ import annotations

import socket
import struct

from net.errors import KernelRefused
from net.netlink import Netlink, Request

_PROTOCOL_SOCK_DIAG = 4
_BY_FAMILY = 20
_LISTEN, _UNCONNECTED = 10, 7
_REQUEST = struct.Struct("=BBBBI48x")
_PROTOCOLS = {"tcp": (socket.IPPROTO_TCP, 1 << _LISTEN), "udp": (socket.IPPROTO_UDP, 1 << _UNCONNECTED)}
LISTENERS_MAX = 256


def listeners(protocol: str) -> list[str]:
    """ "ADDRESS:PORT" of every listening socket in the namespace of the calling thread, v6 in brackets.

    Raises KernelRefused where the kernel does not tell; the protocol is "tcp" or "udp".
    """
    number, states = _PROTOCOLS[protocol]
    found: set[str] = set()
    with Netlink(_PROTOCOL_SOCK_DIAG) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = Request(_BY_FAMILY, 0, _REQUEST.pack(family, number, 0, 0, states), "list listening sockets")
            try:
                answers = netlink.dump(request)
            except KernelRefused:
                if family == socket.AF_INET:
                    raise
                continue  # a host without IPv6
            for answer in answers:
                port = struct.unpack_from(">H", answer.body, 4)[0]
                length = 4 if family == socket.AF_INET else 16
                address = socket.inet_ntop(family, answer.body[8 : 8 + length])
                found.add(f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}")
    return sorted(found)[:LISTENERS_MAX]
