"""DNS messages as far as a local name server needs them (RFC 1035, 6891); no sockets.

Anything malformed raises `MalformedMessage`; no input makes it loop or grow: compression pointers are
followed only where they lead backwards, and counts are bounded by the length of the message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

TYPE_A, TYPE_SOA, TYPE_PTR, TYPE_AAAA, TYPE_SRV, TYPE_OPT = 1, 6, 12, 28, 33, 41
TYPE_META_FIRST, TYPE_ANY = 249, 255  # TKEY, TSIG, transfers and ANY: no data of a name
CLASS_IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
BAD_VERSION = 16  # of EDNS (RFC 6891, 6.1.3)
MESSAGE_BYTES_MAX = 65535
UDP_BYTES_DEFAULT = 512
UDP_BYTES_OURS = 1232  # fits every path without fragments (RFC 9715)

HEADER = struct.Struct(">HHHHHH")
RECORD = struct.Struct(">HHIH")  # type, class, TTL in seconds, bytes of data
RESPONSE, AUTHORITATIVE, TRUNCATED = 0x8000, 0x0400, 0x0200
RECURSION_DESIRED, RECURSION_AVAILABLE = 0x0100, 0x0080
AUTHENTIC_DATA, CHECKING_DISABLED = 0x0020, 0x0010
OPCODE_MASK = 0x7800
DNSSEC_OK = 0x8000  # in the TTL of the OPT record
THE_QUESTION = b"\xc0\x0c"  # a pointer to the name asked for
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
    dnssec_ok: bool = False
    edns_version: int = 0

    @property
    def standard(self) -> bool:
        return not self.flags & OPCODE_MASK


@dataclass(frozen=True, slots=True)
class Record:
    kind: int
    data: bytes
    ttl_seconds: int
    owner: bytes = THE_QUESTION  # as it stands in a message


def read_query(data: bytes) -> Query:
    """Raises MalformedMessage where it is no query with exactly one question (RFC 9619)."""
    if len(data) < 12:
        raise MalformedMessage("shorter than a header")
    identifier, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & RESPONSE:
        raise MalformedMessage("a response, not a query")
    if questions != 1:
        raise MalformedMessage(f"{questions} questions instead of one")
    name, offset = read_name(data, 12)
    if offset + 4 > len(data):
        raise MalformedMessage("ends within the question")
    kind, record_class = struct.unpack_from(">HH", data, offset)
    question = data[12 : offset + 4]
    offset += 4
    if not answers + authorities + additionals:
        return Query(identifier, flags, name, kind, record_class, question, False, UDP_BYTES_DEFAULT)
    option: tuple[int, int] | None = None
    for _ in range(answers + authorities + additionals):
        if offset >= len(data):
            raise MalformedMessage("fewer records than the header says")
        offset, record_kind, size, ttl = skip_record(data, offset)
        if record_kind == TYPE_OPT:
            if option is not None:
                raise MalformedMessage("two OPT records")
            option = size, ttl
    if option is None:
        return Query(identifier, flags, name, kind, record_class, question, False, UDP_BYTES_DEFAULT)
    size = max(UDP_BYTES_DEFAULT, min(option[0], UDP_BYTES_OURS))
    dnssec_ok, version = bool(option[1] & DNSSEC_OK), option[1] >> 16 & 0xFF
    return Query(identifier, flags, name, kind, record_class, question, True, size, dnssec_ok, version)


def write_query(
    identifier: int, name: str, kind: int, *, udp_bytes_max: int = 0, dnssec_ok: bool = False, flags: int = 0
) -> bytes:
    """A recursive query, with EDNS where `udp_bytes_max` is given; ValueError for a name that DNS cannot carry."""
    question = write_name(name) + struct.pack(">HH", kind, CLASS_IN)
    return query_of(identifier, question, udp_bytes_max=udp_bytes_max, dnssec_ok=dnssec_ok, flags=flags)


def query_of(
    identifier: int, question: bytes, *, udp_bytes_max: int = 0, dnssec_ok: bool = False, flags: int = 0
) -> bytes:
    """A recursive query for a question that is written already."""
    header = HEADER.pack(identifier, RECURSION_DESIRED | flags, 1, 0, 0, int(bool(udp_bytes_max)))
    return header + question + (option_record(udp_bytes_max, dnssec_ok) if udp_bytes_max else b"")


def option_record(udp_bytes_max: int, dnssec_ok: bool, code: int = 0) -> bytes:
    """The OPT record of EDNS version 0; `code` is the whole response code, of which this carries the upper part."""
    return b"\0" + RECORD.pack(TYPE_OPT, udp_bytes_max, code >> 4 << 24 | (DNSSEC_OK if dnssec_ok else 0), 0)


def write_response(
    query: Query,
    code: int,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    authoritative: bool = True,
) -> bytes:
    """An answer of our own, with EDNS where the query had it (RFC 6891, 6.1.1)."""
    flags = RESPONSE | RECURSION_AVAILABLE | (query.flags & (RECURSION_DESIRED | CHECKING_DISABLED | OPCODE_MASK))
    if authoritative:
        flags |= AUTHORITATIVE
    records = b"".join(
        each.owner + RECORD.pack(each.kind, CLASS_IN, each.ttl_seconds, len(each.data)) + each.data
        for each in (*answers, *authority, *additional)
    )
    option = option_record(UDP_BYTES_OURS, query.dnssec_ok, code) if query.edns else b""
    header = HEADER.pack(
        query.identifier,
        flags | (code & 0x0F),
        1,
        len(answers),
        len(authority),
        len(additional) + int(query.edns),
    )
    return header + query.question + records + option


def write_error(data: bytes, code: int) -> bytes | None:
    """An answer to what could not be read, where at least its header could; never to a response."""
    if len(data) < 12:
        return None
    identifier, flags = struct.unpack_from(">HH", data)
    if flags & RESPONSE:
        return None
    return HEADER.pack(identifier, RESPONSE | (flags & (OPCODE_MASK | RECURSION_DESIRED)) | code, 0, 0, 0, 0)


def truncated(query: Query) -> bytes:
    """Tells the asker to ask again over TCP."""
    answer = bytearray(write_response(query, NO_ERROR, authoritative=False))
    answer[2] |= TRUNCATED >> 8
    return bytes(answer)


def response_code(data: bytes) -> int:
    return data[3] & 0x0F


def address_record(address: str, ttl_seconds: int = 0, owner: bytes = THE_QUESTION) -> Record:
    """A or AAAA, as the address is."""
    if ":" in address:
        return Record(TYPE_AAAA, socket.inet_pton(socket.AF_INET6, address), ttl_seconds, owner)
    return Record(TYPE_A, socket.inet_aton(address), ttl_seconds, owner)


def service_record(target: str, port: int, ttl_seconds: int) -> Record:
    """SRV of priority and weight 0 (RFC 2782); its target is not compressed."""
    return Record(TYPE_SRV, struct.pack(">HHH", 0, 0, port) + write_name(target), ttl_seconds)


def authority_record(zone: str, ttl_seconds: int, owner: bytes | None = None) -> Record:
    """SOA of a zone of ours; TTL and MINIMUM say how long a negative answer holds (RFC 2308, 3)."""
    server = write_name(zone)
    person = write_name(f"hostmaster.{zone}" if zone else "")
    data = server + person + struct.pack(">IIIII", 1, 3600, 600, 86400, ttl_seconds)
    return Record(TYPE_SOA, data, ttl_seconds, server if owner is None else owner)


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


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at `offset` in lower case, and where it ends. A dot within a label is written `\\.`."""
    labels: list[str] = []
    end, size = -1, 1
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
            target = (length & 0x3F) << 8 | data[offset + 1]
            end = offset + 2 if end < 0 else end
            if target >= limit:
                raise MalformedMessage("a name that points forwards")
            offset = limit = target
            continue
        size += 1 + length
        if length > 63 or offset + 1 + length > len(data) or len(labels) >= _LABELS_MAX or size > _NAME_BYTES_MAX:
            raise MalformedMessage("a label or a name that is too long")
        label = data[offset + 1 : offset + 1 + length].lower().decode("latin-1")
        labels.append(label.replace(".", "\\.") if "." in label else label)
        offset += 1 + length


def skip_name(data: bytes, offset: int) -> int:
    """Where the name at `offset` ends; what a pointer leads to is not looked at."""
    size = len(data)
    while offset < size:
        length = data[offset]
        if length == 0:
            return offset + 1
        if length & 0xC0 == 0xC0:
            if offset + 2 > size:
                break
            return offset + 2
        if length > 63:
            raise MalformedMessage("a label that is too long")
        offset += 1 + length
    raise MalformedMessage("ends within a name")


def skip_record(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(where it ends, type, class, TTL) of the record at `offset`."""
    offset = skip_name(data, offset)
    if offset + 10 > len(data):
        raise MalformedMessage("ends within a record")
    kind, record_class, ttl, length = RECORD.unpack_from(data, offset)
    if offset + 10 + length > len(data):
        raise MalformedMessage("a record that is longer than the message")
    return offset + 10 + length, kind, record_class, ttl
