"""DNS messages as far as a local name server needs them (RFC 1035, 6891); no sockets.

Anything malformed raises `MalformedMessage`; no input makes it loop or grow: compression pointers are
followed only where they lead backwards, and counts are bounded by the length of the message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

TYPE_A, TYPE_PTR, TYPE_AAAA, TYPE_OPT, TYPE_ANY = 1, 12, 28, 41, 255
CLASS_IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
MESSAGE_BYTES_MAX = 65535
UDP_BYTES_DEFAULT = 512
UDP_BYTES_OURS = 1232  # fits every path without fragments (DNS flag day 2020)

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED = 0x8000, 0x0400, 0x0200
_RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x0100, 0x0080
_OPCODE_MASK = 0x7800
_NAME_BYTES_MAX = 255
_LABELS_MAX = 128


class MalformedMessage(ValueError):
    """The bytes are no DNS message that can be answered."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question; `name` is lower case, with dots between labels and none at its end."""

    identifier: int
    flags: int
    name: str
    kind: int
    record_class: int
    question: bytes  # as it came, letter case included
    edns: bool
    udp_bytes_max: int  # the asker takes answers up to this over UDP

    @property
    def standard(self) -> bool:
        return not self.flags & _OPCODE_MASK


def read_query(data: bytes) -> Query:
    """Raises MalformedMessage where it is no query with exactly one question."""
    if len(data) < 12:
        raise MalformedMessage("shorter than a header")
    identifier, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise MalformedMessage("a response, not a query")
    if questions != 1:
        raise MalformedMessage(f"{questions} questions instead of one")
    name, offset = _read_name(data, 12)
    if offset + 4 > len(data):
        raise MalformedMessage("ends within the question")
    kind, record_class = struct.unpack_from(">HH", data, offset)
    question = data[12 : offset + 4]
    offset += 4
    edns, udp_bytes = False, UDP_BYTES_DEFAULT
    for _ in range(answers + authorities + additionals):
        if offset >= len(data):
            raise MalformedMessage("fewer records than the header says")
        offset, record_kind, size, _ = _skip_record(data, offset)
        if record_kind == TYPE_OPT:
            edns, udp_bytes = True, max(UDP_BYTES_DEFAULT, size)
    return Query(identifier, flags, name, kind, record_class, question, edns, udp_bytes)


def write_query(identifier: int, name: str, kind: int) -> bytes:
    """A plain recursive query; ValueError for a name that DNS cannot carry."""
    header = _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + write_name(name) + struct.pack(">HH", kind, CLASS_IN)


def write_response(query: Query, code: int, records: Sequence[tuple[int, bytes]] = (), ttl_seconds: int = 0) -> bytes:
    """An answer of our own: `records` are (type, data) of the name asked for."""
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (query.flags & (_RECURSION_DESIRED | _OPCODE_MASK))
    body = b"".join(b"\xc0\x0c" + _RECORD.pack(kind, CLASS_IN, ttl_seconds, len(data)) + data for kind, data in records)
    option = b"\0" + _RECORD.pack(TYPE_OPT, UDP_BYTES_OURS, 0, 0) if query.edns else b""
    header = _HEADER.pack(query.identifier, flags | code, 1, len(records), 0, int(query.edns))
    return header + query.question + body + option


def write_error(data: bytes, code: int) -> bytes | None:
    """An answer to what could not be read, where at least its header could; never to a response."""
    if len(data) < 12:
        return None
    identifier, flags = struct.unpack_from(">HH", data)
    if flags & _RESPONSE:
        return None
    return _HEADER.pack(identifier, _RESPONSE | (flags & _OPCODE_MASK) | code, 0, 0, 0, 0)


def truncated(query: Query) -> bytes:
    """Tells the asker to ask again over TCP."""
    answer = bytearray(write_response(query, NO_ERROR))
    answer[2] |= _TRUNCATED >> 8
    return bytes(answer)


def is_response_to(query: Query, data: bytes, identifier: int) -> bool:
    """Whether a datagram answers our question: same identifier, same name, type and class."""
    if len(data) < 12 + len(query.question):
        return False
    got, flags, questions = struct.unpack_from(">HHH", data)
    question = data[12 : 12 + len(query.question)]
    return (
        got == identifier and bool(flags & _RESPONSE) and questions == 1 and question.lower() == query.question.lower()
    )


def response_code(data: bytes) -> int:
    return data[3] & 0x0F


def lifetime_seconds(data: bytes, seconds_max: int) -> int:
    """How long a response may be kept: its smallest TTL, at most `seconds_max`; 0 for what has no record."""
    smallest = seconds_max
    try:
        _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
        if flags & _TRUNCATED or not answers + authorities:
            return 0
        offset = 12
        for _ in range(questions):
            offset = _read_name(data, offset)[1] + 4
        for _ in range(answers + authorities):
            offset, _, _, ttl = _skip_record(data, offset)
            smallest = min(smallest, ttl)
    except (MalformedMessage, struct.error):
        return 0
    return smallest


def address_record(address: str) -> tuple[int, bytes]:
    return TYPE_A, socket.inet_aton(address)


def write_name(name: str) -> bytes:
    """ValueError for a label or a name that is too long."""
    parts = []
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        raw = label.encode("ascii", "replace")
        if not 1 <= len(raw) <= 63:
            raise ValueError(f"{name!r} has a label of {len(raw)} bytes; 1 to 63 are possible")
        parts.append(bytes([len(raw)]) + raw)
    written = b"".join(parts) + b"\0"
    if len(written) > _NAME_BYTES_MAX:
        raise ValueError(f"{name!r} is longer than {_NAME_BYTES_MAX} bytes")
    return written


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at `offset` in lower case, and where it ends."""
    labels: list[str] = []
    end = -1
    limit = offset
    while True:
        if offset >= len(data):
            raise MalformedMessage("ends within a name")
        length = data[offset]
        if length == 0:
            return ".".join(labels), offset + 1 if end < 0 else end
        if length & 0xC0 == 0xC0:
            if offset + 2 > len(data):
                raise MalformedMessage("ends within a pointer")
            target = struct.unpack_from(">H", data, offset)[0] & 0x3FFF
            end = offset + 2 if end < 0 else end
            if target >= limit:
                raise MalformedMessage("a name that points forwards")
            offset = limit = target
            continue
        if length > 63 or offset + 1 + length > len(data) or len(labels) >= _LABELS_MAX:
            raise MalformedMessage("a label that is too long")
        labels.append(data[offset + 1 : offset + 1 + length].decode("latin-1").lower())
        offset += 1 + length


def _skip_record(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(where it ends, type, class, TTL) of the record at `offset`."""
    _, offset = _read_name(data, offset)
    if offset + 10 > len(data):
        raise MalformedMessage("ends within a record")
    kind, record_class, ttl, length = _RECORD.unpack_from(data, offset)
    if offset + 10 + length > len(data):
        raise MalformedMessage("a record that is longer than the message")
    return offset + 10 + length, kind, record_class, ttl
