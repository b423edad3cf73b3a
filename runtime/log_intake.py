"""What came out of a task's FIFO and is not in its log yet, kept so that `kill -9` of the daemon neither loses nor
doubles a byte of it.

folder/out.pending and err.pending: HEAD, then bytes as they came. The kernel moves them there out of the FIFO
(splice(2)), so that they never are in this process's memory alone. What stands from START on is not in the log yet,
except what the log has of the stream behind NUMBER OFFSET: that was appended, and only this file did not learn of it.
Every change is one write of a few bytes, which a signal does not cut. Blocking; called in threads.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from runtime import log_reader
from runtime.log_reader import Position

TAKE_BYTES_MAX = 64 * 1024
SHORTEN_BYTES = 512 * 1024  # of what is in the log already, before it is cut away
_HEAD = struct.Struct("<8sQQQ")  # MAGIC, NUMBER and OFFSET of the log's end, START
_MAGIC = b"fwlog 1\n"


def path_of(folder: Path, stream: str) -> Path:
    return folder / f"{stream}.pending"


def remaining(pending: bytes, appended: Iterable[tuple[bytes, bool]]) -> bytes:
    """What of `pending` is not in the log, which has `appended` of it: texts, and whether their line goes on. Pure.

    Lines may be missing there, where a task wrote more than it may.
    """
    place = 0
    for text, goes_on in appended:
        found = place
        while found >= 0:
            end = found + len(text)
            if pending.startswith(text, found) and (goes_on or pending[end : end + 1] in (b"\n", b"")):
                place = min(end + (not goes_on), len(pending))
                break
            found = pending.find(b"\n", found) + 1 or -1
    return pending[place:]


class Intake:
    """Of one stream ("out" or "err") of one task; touches the disk only once there is something to keep."""

    def __init__(self, folder: Path, stream: str) -> None:
        self._folder = folder
        self._stream = stream
        self._path = path_of(folder, stream)
        self._file = -1
        self._start = self._size = _HEAD.size

    def load(self, end: Position) -> bytes:
        """What an earlier daemon left; `end` is where the log ends. Raises OSError."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        rest = b""
        if len(content) >= _HEAD.size:
            magic, number, offset_bytes, start = _HEAD.unpack_from(content)
            if magic == _MAGIC:
                appended = log_reader.texts_after(self._folder, Position(number, offset_bytes), self._stream)
                rest = remaining(content[max(start, _HEAD.size) :], appended)
        self._rewrite(rest, end)
        return rest

    def take(self, fifo: int, end: Position) -> bytes:
        """What the FIFO holds, at most TAKE_BYTES_MAX; empty once every writer has closed. Raises BlockingIOError where
        it holds nothing, and OSError, such as a full disk: then it still holds what it held."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._say(end)
        taken = os.splice(fifo, self._file, TAKE_BYTES_MAX, offset_dst=self._size, flags=os.SPLICE_F_NONBLOCK)
        data = os.pread(self._file, taken, self._size)
        self._size += taken
        return data

    def settle(self, rest: bytes, end: Position) -> None:
        """The log, which ends at `end`, has what was taken but for its last bytes, `rest`. Raises OSError."""
        if self._file < 0:
            return
        self._start = self._size - len(rest)
        self._say(end)
        if self._start < SHORTEN_BYTES:
            return
        if rest:
            self._rewrite(rest, end)
        else:
            os.ftruncate(self._file, _HEAD.size)  # START lies behind the end then: there is nothing
            self._start = self._size = _HEAD.size

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._start == self._size:
                with contextlib.suppress(OSError):
                    self._path.unlink()

    def _say(self, end: Position) -> None:
        os.pwrite(self._file, _HEAD.pack(_MAGIC, end.number, end.offset_bytes, self._start), 0)

    def _rewrite(self, rest: bytes, end: Position) -> None:
        """The same in a new file; the old one is whole until it takes its place."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, _HEAD.pack(_MAGIC, end.number, end.offset_bytes, _HEAD.size) + rest, 0)
            fresh.replace(self._path)
        except BaseException:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._start, self._size = file, _HEAD.size, _HEAD.size + len(rest)
