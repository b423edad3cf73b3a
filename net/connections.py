"""Makes the kernel forget connections to tasks that are withdrawn or gone (conntrack over netlink).

Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`; deletion by a filter is in
kernels from 5.8 on. For IPv6 that filter does the opposite: it deletes every connection but those to the address asked
for (seen in 6.18: the comparison in `ctnetlink_filter_match_tuple` is the wrong way round). So IPv6 connections are
listed, and deleted one by one.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator

from net.errors import KernelRefused
from net.netlink import (
    PROTOCOL_NETFILTER,
    Answer,
    Netlink,
    Request,
    attribute,
    attribute_map,
    attributes,
    nest,
    u8,
    u32,
)
from net.route_messages import pack_address

UDP = socket.IPPROTO_UDP
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_HEADER = struct.Struct(">BBH")
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL, _PROTOCOL_NUMBER = 1, 2, 1
_IPV4_SOURCE, _IPV6_SOURCE = 1, 3
_FILTER_SOURCE, _FILTER_PROTOCOL = 1 << 0, 1 << 3


def forget_request(address: str, protocol: int | None) -> Request:
    """Forgets every connection that an IPv4 `address` answers, of one IP protocol or (None) of all."""
    parts = nest(_TUPLE_IP, attribute(_IPV4_SOURCE, pack_address(address)))
    flags = _FILTER_SOURCE
    if protocol is not None:
        parts += nest(_TUPLE_PROTOCOL, u8(_PROTOCOL_NUMBER, protocol))
        flags |= _FILTER_PROTOCOL
    # Version 1 of the header makes the kernel look at the family given.
    body = _HEADER.pack(socket.AF_INET, 1, 0) + nest(_REPLY, parts)
    body += nest(_FILTER, u32(1, 0) + u32(2, flags))
    return Request(_DELETE, 0, body, f"forget connections to {address}")


def list_ipv6() -> Request:
    return Request(_GET, 0, _HEADER.pack(socket.AF_INET6, 0, 0), "list IPv6 connections")


def forget_listed(answers: Iterable[Answer], protocols: dict[bytes, int | None]) -> Iterator[Request]:
    """Forgets those listed connections that the addresses (16 bytes) answer, of one IP protocol or (None) of all."""
    for answer in answers:
        # Cheaper than taking apart a connection of someone else, of which there may be many.
        if not any(address in answer.body for address in protocols):
            continue
        whole = {
            kind: data
            for kind, data in attributes(answer.body, _HEADER.size)
            if kind in (_ORIGINAL, _REPLY, _ID, _ZONE)
        }
        reply = attribute_map(whole.get(_REPLY, b""))
        source = attribute_map(reply.get(_TUPLE_IP, b"")).get(_IPV6_SOURCE, b"")
        if source not in protocols:
            continue
        wanted = protocols[source]
        number = attribute_map(reply.get(_TUPLE_PROTOCOL, b"")).get(_PROTOCOL_NUMBER)
        if wanted is not None and number != bytes([wanted]):
            continue
        body = _HEADER.pack(socket.AF_INET6, 0, 0) + nest(_ORIGINAL, whole.get(_ORIGINAL, b""))
        body += b"".join(attribute(kind, whole[kind]) for kind in (_ID, _ZONE) if kind in whole)
        yield Request(_DELETE, 0, body, f"forget a connection to {socket.inet_ntop(socket.AF_INET6, source)}")


class Connections:
    """Not safe for several threads at once."""

    def __init__(self) -> None:
        self._netlink = Netlink(PROTOCOL_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def forget(self, withdrawn: list[str], gone: list[str]) -> list[str]:
        """UDP of withdrawn addresses, everything of gone ones; returns what the kernel refused, in words.

        Established TCP connections of a withdrawn task go on until it stops. Takes a few microseconds for each IPv6
        connection of the host.
        """
        protocols: dict[str, int | None] = {**dict.fromkeys(withdrawn, UDP), **dict.fromkeys(gone)}
        requests = [forget_request(address, each) for address, each in protocols.items() if ":" not in address]
        refused = [error for _, error in self._netlink.ask_all(requests)]
        ipv6 = {pack_address(address): each for address, each in protocols.items() if ":" in address}
        if ipv6:
            try:
                listed = self._netlink.dump(list_ipv6())
            except KernelRefused as error:
                refused.append(error)
            else:
                # Some have just ended by themselves.
                found = self._netlink.ask_all(list(forget_listed(listed, ipv6)))
                refused += [error for _, error in found if error.code != errno.ENOENT]
        return [str(error) for error in refused]
