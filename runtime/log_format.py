"""Lines of a task's log as they stand in its files, and back. Pure.

One record a line: `2026-11-21T21:51:19.123456789Z out text`. The time is UTC, when the daemon read the
line; the second word is `out` or `err`, with a `+` where the line was longer than LINE_BYTES_MAX and goes on
in the next record of that stream. The text is as the process wrote it, byte for byte.
"""

from __future__ import annotations

import calendar
import time

from proto.host_pb2 import LogLine

LINE_BYTES_MAX = 16 * 1024
STAMP_LENGTH = 30  # of 2026-11-21T21:51:19.123456789Z


class LineSplitter:
    """Cuts one stream into records; holds at most one unfinished line."""

    def __init__(self, stream: str, unfinished: bytes = b"") -> None:
        self._tag = stream.encode()
        self._rest = unfinished

    @property
    def unfinished(self) -> bytes:
        """The line that has not ended; at most LINE_BYTES_MAX bytes."""
        return self._rest

    def feed(self, data: bytes, unix_ns: int) -> bytes:
        """Records of all lines that `data` ended, and of what is too long to wait for its end."""
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

    def finish(self, unix_ns: int) -> bytes:
        """The stream is at its end: the record of the unfinished line, if there is one."""
        if not self._rest:
            return b""
        rest, self._rest = self._rest, b""
        return stamp(unix_ns) + b" " + self._tag + b" " + rest + b"\n"


def stamp(unix_ns: int) -> bytes:
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z".encode()


def parse(record: bytes) -> LogLine | None:
    """The line of one record without its line end; None where it is none (a torn write)."""
    if len(record) < STAMP_LENGTH + 4 or record[STAMP_LENGTH - 1 : STAMP_LENGTH] != b"Z":
        return None
    tag, space, text = record[STAMP_LENGTH + 1 :].partition(b" ")
    if not space or tag.rstrip(b"+") not in (b"out", b"err"):
        return None
    try:
        moment = time.strptime(record[:19].decode(), "%Y-%m-%dT%H:%M:%S")
        nanoseconds = int(record[20 : STAMP_LENGTH - 1])
    except ValueError:
        return None
    unix_ns = calendar.timegm(moment) * 1_000_000_000 + nanoseconds
    return LogLine(unix_ns=unix_ns, standard_error=tag.startswith(b"err"), text=text)
