"""Hears of packets that policies denied, or would have, at the rate that the rules let through (NFLOG over netlink).

Formats: the kernel's `include/uapi/linux/netfilter/nfnetlink_log.h`, RFC 791, RFC 8200.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import trio

from net.errors import KernelRefused
from net.netlink import PROTOCOL_NETFILTER, attribute, attribute_map
from net.policy import PROTOCOLS
from net.policy_chains import LOG_GROUP, LOGGED_BYTES
from proto.host_pb2 import ReadPolicyCountsReply

DENIALS_MAX = 200
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_HEADER = struct.Struct("=IHHII")
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_DATAGRAM_BYTES_MAX = 1 << 16
_REQUEST_ACKNOWLEDGE = 5
_ERROR = 2
_NAMES = {number: name for name, number in PROTOCOLS.items()} | {1: "icmp", 58: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Denial:
    """The first packet of a connection."""

    policy_ids: tuple[str, ...]
    unix_ms: int
    source: str
    target: str
    protocol: str
    port: int  # 0: the protocol has none


class PolicyLog:
    """Keeps the last denials."""

    def __init__(self) -> None:
        self.denials: deque[Denial] = deque(maxlen=DENIALS_MAX)

    async def run(self) -> None:
        """Listens until cancelled; raises KernelRefused where the kernel cannot tell, or somebody else listens."""
        with trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, PROTOCOL_NETFILTER) as listening:
            await listening.bind((0, 0))
            for payload in (
                attribute(1, struct.pack("B", _BIND)),
                attribute(2, struct.pack(">IBB", LOGGED_BYTES, _COPY_PACKET, 0)),
            ):
                body = struct.pack(">BBH", 0, 0, LOG_GROUP) + payload
                header = _HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST_ACKNOWLEDGE, 1, 0)
                await listening.send(header + body)
                code = _error_code(await listening.recv(_DATAGRAM_BYTES_MAX))
                if code:
                    raise KernelRefused("listen to what policies deny (NFLOG)", code)
            while True:
                try:
                    data = await listening.recv(_DATAGRAM_BYTES_MAX)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    continue
                self.denials.extend(read_denials(data, time.time_ns() // 1_000_000))


def counts_reply(counts: Mapping[str, tuple[int, int]], denials: Iterable[Denial]) -> ReadPolicyCountsReply:
    """For other hosts."""
    reply = ReadPolicyCountsReply()
    for policy_id, (packets, octets) in sorted(counts.items()):
        reply.counts.add(policy_id=policy_id, packets=packets, bytes=octets)
    for denial in denials:
        for policy_id in denial.policy_ids:
            reply.denials.add(
                policy_id=policy_id,
                unix_ms=denial.unix_ms,
                source=denial.source,
                target=denial.target,
                protocol=denial.protocol,
                port=denial.port,
            )
    return reply


def _error_code(data: bytes) -> int:
    if len(data) >= _HEADER.size + 4 and struct.unpack_from("=H", data, 4)[0] == _ERROR:
        return int(-struct.unpack_from("=i", data, _HEADER.size)[0])
    return 0


def read_denials(data: bytes, unix_ms: int) -> Iterator[Denial]:
    """Of one datagram of the kernel's."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < _HEADER.size:
            return
        if kind == _PACKET:
            found = attribute_map(data[at + _HEADER.size + 4 : at + length])
            prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace").split()
            ends = read_ends(found.get(_PAYLOAD, b""))
            if len(prefix) > 1 and prefix[0] == "fairway" and ends is not None:
                yield Denial(tuple(prefix[1:]), unix_ms, *ends)
        at += (length + 3) & ~3


def read_ends(packet: bytes) -> tuple[str, str, str, int] | None:
    """(source, target, protocol, port) of an IP packet; IPv6 extension headers are not looked behind."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        number, start = packet[9], (packet[0] & 15) * 4
        source, target = (socket.inet_ntop(socket.AF_INET, packet[at : at + 4]) for at in (12, 16))
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        number, start = packet[6], 40
        source, target = (socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24))
    else:
        return None
    name = _NAMES.get(number, str(number))
    port = struct.unpack_from(">H", packet, start + 2)[0] if name in PROTOCOLS and len(packet) >= start + 4 else 0
    return source, target, name, port
