"""Lines of a task's log as they stand in its files, and back. Pure.

One record a line: `2026-11-21T21:51:19.123456789Z out text`. The time is UTC, when the daemon read the
line; the second word is `out` or `err`, with a `+` where the line was longer than LINE_BYTES_MAX and goes on
in the next record of that stream. The text is as the process wrote it, byte for byte. A record of `note` is
Fairway's own, about the log.
"""

from __future__ import annotations

import calendar
import functools
import time

from proto.host_pb2 import LogLine

LINE_BYTES_MAX = 16 * 1024
STAMP_LENGTH = 30  # of 2026-11-21T21:51:19.123456789Z


class LineSplitter:
    """Cuts one stream into records; holds at most one unfinished line."""

    def __init__(self, stream: str) -> None:
        self._tag = stream.encode()
        self._rest = b""
        self._skips = False  # to the end of a line whose beginning is lost

    @property
    def unfinished(self) -> bytes:
        """The line that has not ended; at most LINE_BYTES_MAX bytes."""
        return self._rest

    def feed(self, data: bytes, unix_ns: int) -> bytes:
        """Records of all lines that `data` ended, and of what is too long to wait for its end."""
        if self._skips:
            _, ended, data = data.partition(b"\n")
            self._skips = not ended
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        head = stamp(unix_ns) + b" " + self._tag
        records = []
        for line in lines:
            while len(line) > LINE_BYTES_MAX:
                records.append(head + b"+ " + line[:LINE_BYTES_MAX])
                line = line[LINE_BYTES_MAX:]
            records.append(head + b" " + line)
        while len(self._rest) > LINE_BYTES_MAX:
            records.append(head + b"+ " + self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        return b"\n".join(records) + b"\n" if records else b""

    def give_up(self, data: bytes) -> None:
        """`data` is lost, and with it every line of which it has a part."""
        self._rest = b""
        self._skips = not data.endswith(b"\n")

    def finish(self, unix_ns: int) -> bytes:
        """The stream is at its end: the record of the unfinished line, if there is one."""
        if not self._rest:
            return b""
        rest, self._rest = self._rest, b""
        return stamp(unix_ns) + b" " + self._tag + b" " + rest + b"\n"


def note(words: str, unix_ns: int) -> bytes:
    """A record about the log itself."""
    return stamp(unix_ns) + b" note " + words.encode() + b"\n"


def stamp(unix_ns: int) -> bytes:
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z".encode()


def parse(record: bytes) -> LogLine | None:
    """The line of one record without its line end; None where it is none (a torn write)."""
    if len(record) < STAMP_LENGTH + 4 or record[STAMP_LENGTH - 1 : STAMP_LENGTH] != b"Z":
        return None
    tag, space, text = record[STAMP_LENGTH + 1 :].partition(b" ")
    if not space or tag.rstrip(b"+") not in (b"out", b"err", b"note"):
        return None
    try:
        unix_ns = _unix_s(record[:19]) * 1_000_000_000 + int(record[20 : STAMP_LENGTH - 1])
    except ValueError:
        return None
    if tag == b"note":
        return LogLine(unix_ns=unix_ns, standard_error=True, text=b"fairway: " + text)
    return LogLine(unix_ns=unix_ns, standard_error=tag.startswith(b"err"), text=text)


def unix_s_of(record: bytes) -> int | None:
    """Of the beginning of a record; None where it is none."""
    try:
        return _unix_s(record[:19])
    except ValueError:
        return None


@functools.lru_cache(maxsize=16)
def _unix_s(text: bytes) -> int:
    """Many lines are of one second, and reading a time takes longer than the rest of a line. Raises ValueError."""
    return calendar.timegm(time.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S"))
