"""Responses of other name servers: checked, stripped of what was between us and them, kept with their age. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from net import dns_message as message
from net.dns_message import MalformedMessage, Query

LIFETIME_SECONDS_MAX = 86_400
NEGATIVE_SECONDS_MAX = 900  # RFC 2308, 5 allows up to three hours
_TTL_MAX = 0x7FFFFFFF  # a greater one counts as 0 (RFC 2181, 8)


@dataclass(frozen=True, slots=True)
class Response:
    """What a server said of one question; without the question itself, and without its EDNS."""

    code: int  # with the part that EDNS carries
    truncated: bool
    authentic: bool  # validated by the server (AD)
    counts: tuple[int, int, int]  # of answer, authority and additional records
    records: bytes
    ttls: tuple[tuple[int, int], ...]  # (offset in `records`, seconds)
    lifetime_seconds: int  # how long it may be kept; 0: not at all

    @property
    def size_bytes(self) -> int:
        return len(self.records) + 16 * len(self.ttls) + 200


def read_response(data: bytes, identifier: int, question: bytes) -> Response | None:
    """None where it does not answer `question` of `identifier`, letter case aside; raises MalformedMessage.

    The end of `records` that would have to be changed to take EDNS out of its midst is left out: additional
    records are nobody's right.
    """
    if len(data) < 12 + len(question):
        return None
    got, flags, questions, answers, authorities, additionals = message.HEADER.unpack_from(data)
    if got != identifier or not flags & message.RESPONSE or flags & message.OPCODE_MASK or questions != 1:
        return None
    if data[12 : 12 + len(question)].lower() != question.lower():
        return None
    start = offset = 12 + len(question)
    ttls, lowest, code, kept_additionals, end = [], LIFETIME_SECONDS_MAX, flags & 0x0F, 0, -1
    proof = False  # an SOA, without which a negative answer is not kept (RFC 2308, 5)
    for number in range(answers + authorities + additionals):
        begin, name_end = offset, message.skip_name(data, offset)
        offset, kind, _, ttl = message.skip_record(data, offset)
        if kind == message.TYPE_OPT:
            code |= ttl >> 24 << 4
            end = begin if end < 0 else end
            continue
        if end >= 0:
            continue
        seconds = min(ttl if ttl <= _TTL_MAX else 0, LIFETIME_SECONDS_MAX)
        ttls.append((name_end + 4 - start, seconds))
        kept_additionals += number >= answers + authorities
        if kind == message.TYPE_SOA and answers <= number < answers + authorities:
            proof = True
            minimum = struct.unpack_from(">I", data, offset - 4)[0] if offset - name_end >= 14 else 0
            seconds = min(seconds, minimum, NEGATIVE_SECONDS_MAX)
        lowest = min(lowest, seconds)
    positive = answers and code == message.NO_ERROR
    if not (positive or (proof and code in (message.NO_ERROR, message.NAME_ERROR))):
        lowest = 0
    return Response(
        code,
        bool(flags & message.TRUNCATED),
        bool(flags & message.AUTHENTIC_DATA),
        (answers, authorities, kept_additionals),
        data[start : offset if end < 0 else end],
        tuple(ttls),
        0 if flags & message.TRUNCATED else lowest,
    )


def same_case(data: bytes, question: bytes) -> bool:
    """Whether a response repeats the question letter by letter: a forger has to guess the case, too."""
    return data[12 : 12 + len(question)] == question


def write_answer(query: Query, response: Response, age_seconds: int = 0, ttl_seconds: int | None = None) -> bytes:
    """What the asker gets: its own identifier, question and letter case, times to live less the age.

    `ttl_seconds` in place of those: for an answer that is beyond its time (RFC 8767, 4).
    """
    records = response.records
    if (age_seconds or ttl_seconds is not None) and response.ttls:
        changed = bytearray(records)
        for offset, seconds in response.ttls:
            left = max(0, seconds - age_seconds) if ttl_seconds is None else ttl_seconds
            struct.pack_into(">I", changed, offset, left)
        records = bytes(changed)
    flags = message.RESPONSE | message.RECURSION_AVAILABLE
    flags |= query.flags & (message.RECURSION_DESIRED | message.CHECKING_DISABLED)
    if response.authentic and (query.dnssec_ok or query.flags & message.AUTHENTIC_DATA):
        flags |= message.AUTHENTIC_DATA  # RFC 6840, 5.8
    option = b""
    if query.edns:
        option = message.option_record(message.UDP_BYTES_OURS, query.dnssec_ok, response.code)
    answers, authorities, additionals = response.counts
    counts = (1, answers, authorities, additionals + int(query.edns))
    header = message.HEADER.pack(query.identifier, flags | (response.code & 0x0F), *counts)
    return header + query.question + records + option


__all__ = ["MalformedMessage", "Response", "read_response", "same_case", "write_answer"]
