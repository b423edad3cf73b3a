"""Whether SQLite's write-ahead log lost what was durable: looked at before SQLite opens the file.

SQLite ends its recovery at the first frame that does not check out and takes the rest for a write that a power
cut interrupted; where the frame was damaged later, that drops transactions which were durable, votes among them,
without a word. With synchronous=FULL each transaction is durable before the next is begun, so a frame of a later
transaction behind the bad one proves damage. Of the newest transaction alone it cannot be told.

The format: https://sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
from pathlib import Path

from raft.errors import MemberFault

SUFFIX = "-wal"
_HEADER = struct.Struct(">8I")  # magic, format, page bytes, checkpoint sequence, salt 1, salt 2, checksum 1, 2
_FRAME = struct.Struct(">6I")  # page, database pages after a commit (else 0), salt 1, salt 2, checksum 1, 2
_MAGIC = 0x377F0682  # the lowest bit: checksums over big-endian words
_PAGE_BYTES = range(512, 65537)
_WORDS_MASK = 0xFFFFFFFF


def check_wal(database: Path) -> None:
    """MemberFault where the log beside `database` lost durable transactions; OSError."""
    path = database.with_name(database.name + SUFFIX)
    content = path.read_bytes() if path.exists() else b""
    if len(content) < _HEADER.size + _FRAME.size:
        return  # the header is durable before the first frame is written
    magic, _, page_bytes, _, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack_from(content)
    words = ">" if magic & 1 else "<"
    whole = magic & ~1 == _MAGIC and page_bytes in _PAGE_BYTES and page_bytes & (page_bytes - 1) == 0
    if not whole or _checksum(content[: _HEADER.size - 8], words, (0, 0)) != (sum_1, sum_2):
        raise _damaged(path, "its header")
    step = _FRAME.size + page_bytes
    frames = range(_HEADER.size, len(content) - step + 1, step)
    sums = (sum_1, sum_2)
    for number, at in enumerate(frames):
        _, _, found_1, found_2, sum_1, sum_2 = _FRAME.unpack_from(content, at)
        if (found_1, found_2) == (salt_1, salt_2):
            sums = _checksum(content[at : at + 8], words, sums)
            sums = _checksum(content[at + _FRAME.size : at + step], words, sums)
            if sums == (sum_1, sum_2):
                continue
        if _later_transaction(content, frames[number:], (salt_1, salt_2)):
            raise _damaged(path, f"frame {number + 1}")
        return


def _later_transaction(content: bytes, frames: range, salts: tuple[int, int]) -> bool:
    """Whether frames of this run of the log (its salts) follow the transaction that the first of them is of."""
    ended = False
    for at in frames:
        _, pages_after_commit, salt_1, salt_2, _, _ = _FRAME.unpack_from(content, at)
        if (salt_1, salt_2) != salts:
            continue
        if ended:
            return True
        ended = pages_after_commit != 0
    return False


def _checksum(content: bytes, words: str, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    for even, odd in struct.iter_unpack(f"{words}2I", content):
        first = (first + even + second) & _WORDS_MASK
        second = (second + odd + first) & _WORDS_MASK
    return first, second


def _damaged(path: Path, where: str) -> MemberFault:
    return MemberFault(
        f"the journal {path} is damaged ({where} does not match its checksum, and what was written after it is "
        "there): restore this host's state or rejoin"
    )
