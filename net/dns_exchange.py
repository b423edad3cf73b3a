"""One question to one server: by UDP from a port of its own, by TCP where that does not do."""

from __future__ import annotations

import logging
import random
import struct

import trio

from net import dns_message as message
from net import dns_response as responses
from net.dns_health import ServerHealth
from net.dns_response import MalformedMessage, Response

log = logging.getLogger(__name__)

PORT = 53
_random = random.SystemRandom()


async def exchange(
    server: str, question: bytes, *, dnssec_ok: bool, unchecked: bool, health: ServerHealth
) -> Response | None:
    """The server's response; None where it closed without one. Waits as long as it takes. Raises OSError."""
    flags = message.CHECKING_DISABLED if unchecked else 0
    asked = mixed_case(question) if health.repeats_case(server) else question
    identifier = _random.randrange(65536)
    packet = message.query_of(identifier, asked, udp_bytes_max=message.UDP_BYTES_OURS, dnssec_ok=dnssec_ok, flags=flags)
    response, same_case = await _ask_by_udp(server, packet, identifier, asked)
    if response.code in (message.FORMAT_ERROR, message.NOT_IMPLEMENTED):
        # Before EDNS, that was how servers said that they did not know it (RFC 6891, 7).
        packet = message.query_of(identifier, asked, flags=flags)
        response, same_case = await _ask_by_udp(server, packet, identifier, asked)
    if response.truncated or not same_case:
        by_tcp = await _ask_by_tcp(server, packet, identifier, asked)
        if by_tcp is not None and not same_case:
            health.changed_case(server)
        return by_tcp
    return response


def mixed_case(question: bytes) -> bytes:
    """The question in letters of random case, which a forger has to guess (draft-vixie-dnsext-dns0x20)."""
    bits = _random.getrandbits(8 * len(question))
    mixed = bytearray(question)
    for place in range(len(question) - 4):
        letter = mixed[place]
        if bits >> place & 1 and (0x41 <= letter <= 0x5A or 0x61 <= letter <= 0x7A):
            mixed[place] = letter ^ 0x20
    return bytes(mixed)


async def _ask_by_udp(server: str, packet: bytes, identifier: int, question: bytes) -> tuple[Response, bool]:
    """Whatever does not answer the question is not for us."""
    family = trio.socket.AF_INET6 if ":" in server else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        await socket.connect((server, PORT))
        await socket.send(packet)
        while True:
            data: bytes = await socket.recv(message.MESSAGE_BYTES_MAX)
            if (response := _read(server, data, identifier, question)) is not None:
                return response, responses.same_case(data, question)


async def _ask_by_tcp(server: str, packet: bytes, identifier: int, question: bytes) -> Response | None:
    async with await trio.open_tcp_stream(server, PORT) as stream:
        await stream.send_all(struct.pack(">H", len(packet)) + packet)
        received = bytearray()
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            part = await stream.receive_some(16384)
            if not part:
                return None
            received += part
        data = bytes(received[2 : 2 + int.from_bytes(received[:2], "big")])
        return _read(server, data, identifier, question)


def _read(server: str, data: bytes, identifier: int, question: bytes) -> Response | None:
    try:
        return responses.read_response(data, identifier, question)
    except MalformedMessage as error:
        log.debug("name server %s: %s", server, error)
        return None
