"""The datagrams by which hosts probe each other's paths; pure.

A request is a header of 24 bytes, filled up with zeros to the size that is to be tried; the answer is the same
header alone with another kind. So an answer is never longer than what asked for it, and it says of the way there
only whether that size gets through: each host tries its own direction.

    0   4   magic "FWP1"
    4   1   kind: 1 request, 2 answer
    5   3   zero
    8  16   nonce, random: whoever cannot see the request cannot make its answer
"""

from __future__ import annotations

import struct
from typing import NamedTuple

REQUEST, ANSWER = 1, 2
FRAME_BYTES_MIN = 24
FRAME_BYTES_MAX = 65_507  # RFC 768: what a datagram over IPv4 holds
NONCE_BYTES = 16

_MAGIC = b"FWP1"
_HEADER = struct.Struct(f">4sB3x{NONCE_BYTES}s")


class Frame(NamedTuple):
    kind: int
    nonce: bytes


def request(nonce: bytes, size_bytes: int) -> bytes:
    """A request whose UDP payload has `size_bytes`; ValueError where no datagram has."""
    if not FRAME_BYTES_MIN <= size_bytes <= FRAME_BYTES_MAX:
        raise ValueError(f"a probe has {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} bytes, not {size_bytes}")
    return _HEADER.pack(_MAGIC, REQUEST, nonce).ljust(size_bytes, b"\0")


def answer(nonce: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, ANSWER, nonce)


def read(data: bytes) -> Frame | None:
    """None for what is no probe."""
    if len(data) < FRAME_BYTES_MIN:
        return None
    magic, kind, nonce = _HEADER.unpack_from(data)
    return Frame(kind, nonce) if magic == _MAGIC and kind in (REQUEST, ANSWER) else None
