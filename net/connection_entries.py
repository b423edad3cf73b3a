"""The kernel's table of connections (conntrack over netlink), as what looks for some of them reads it.

Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h` and `nf_conntrack_tcp.h`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from net.errors import KernelRefused
from net.netlink import PROTOCOL_NETFILTER, Answer, Netlink, Request, attribute, attribute_map, nest

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_HEADER = struct.Struct(">BBH")
_ORIGINAL, _REPLY, _PROTOCOL_INFO, _MARK, _ID, _ZONE = 1, 2, 4, 8, 12, 18
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _SOURCE_PORT = 1, 2
_INFO_TCP, _TCP_STATE, _TCP_ESTABLISHED = 1, 1, 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection as it was asked for and as it is answered; addresses as text, `port` of who answers."""

    source: str
    asked: str
    answers: str
    protocol: int
    port: int
    established: bool  # of TCP
    mark: int
    delete: Request


def read_entries(answers: Iterable[Answer], family: int) -> Iterator[Entry]:
    for answer in answers:
        whole = attribute_map(answer.body, _HEADER.size)
        original, reply = attribute_map(whole.get(_ORIGINAL, b"")), attribute_map(whole.get(_REPLY, b""))
        asked_ip, answer_ip = attribute_map(original.get(_TUPLE_IP, b"")), attribute_map(reply.get(_TUPLE_IP, b""))
        protocol = attribute_map(reply.get(_TUPLE_PROTOCOL, b""))
        first = 1 if family == socket.AF_INET else 3  # source, then destination
        found = (asked_ip.get(first), asked_ip.get(first + 1), answer_ip.get(first))
        if None in found:
            continue
        source, asked, answering = (socket.inet_ntop(family, each) for each in found if each is not None)
        tcp = attribute_map(attribute_map(whole.get(_PROTOCOL_INFO, b"")).get(_INFO_TCP, b""))
        body = _HEADER.pack(family, 0, 0) + nest(_ORIGINAL, whole[_ORIGINAL])
        body += b"".join(attribute(kind, whole[kind]) for kind in (_ID, _ZONE) if kind in whole)
        yield Entry(
            source,
            asked,
            answering,
            protocol.get(_NUMBER, b"\0")[0],
            int.from_bytes(protocol.get(_SOURCE_PORT, b""), "big"),
            tcp.get(_TCP_STATE) == bytes([_TCP_ESTABLISHED]),
            int.from_bytes(whole.get(_MARK, b""), "big"),
            Request(_DELETE, 0, body, f"forget the connection of {source} to {answering}"),
        )


def forget_where(unwanted: Callable[[Entry], bool], *, ipv6: bool) -> list[str]:
    """Forgets these connections, some 20 µs for each of the host's; what the kernel refused, in words."""
    refused: list[str] = []
    with Netlink(PROTOCOL_NETFILTER) as netlink:
        for family in (socket.AF_INET, *([socket.AF_INET6] if ipv6 else [])):
            try:
                listed = netlink.dump(Request(_GET, 0, _HEADER.pack(family, 0, 0), "list connections"))
                requests = [each.delete for each in read_entries(listed, family) if unwanted(each)]
                # Some have just ended by themselves.
                refused += [str(error) for _, error in netlink.ask_all(requests) if error.code != errno.ENOENT]
            except KernelRefused as error:
                refused.append(str(error))
    return refused
