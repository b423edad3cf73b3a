"""How far a reader is in the log of a task: what comes again after a reconnection is passed over. Pure."""

from __future__ import annotations

from collections import Counter

from proto.host_pb2 import LogLine

STREAMS_APART_MS_MAX = 60_000  # what was read at one time is in the file long before that has passed


class LogPlace:
    """Stamps grow within a stream; lines that were read at once have the same one, so those are counted."""

    def __init__(self) -> None:
        self._newest: dict[bool, tuple[int, int]] = {}  # by stream: the newest stamp, and how many lines have it
        self._seen: dict[bool, tuple[int, int]] = {}  # the same when the reader began again
        self._again: Counter[bool] = Counter()  # lines with that stamp that have come again

    def begin_again(self) -> int | None:
        """From when on the log has to be read again, in milliseconds since 1970; None: nothing was read of it."""
        self._seen = dict(self._newest)
        self._again.clear()
        if not self._newest:
            return None
        stamps_ms = [unix_ns // 1_000_000 for unix_ns, _ in self._newest.values()]
        return max(min(stamps_ms), max(stamps_ms) - STREAMS_APART_MS_MAX)

    def is_new(self, line: LogLine) -> bool:
        """Whether the reader has not had this one; to be asked once for each line, in the order of the log."""
        stream = line.standard_error
        seen_ns, seen_lines = self._seen.get(stream, (-1, 0))
        if line.unix_ns < seen_ns:
            return False
        if line.unix_ns == seen_ns:
            self._again[stream] += 1
            if self._again[stream] <= seen_lines:
                return False
        newest_ns, lines = self._newest.get(stream, (-1, 0))
        if line.unix_ns >= newest_ns:
            self._newest[stream] = (line.unix_ns, lines + 1 if line.unix_ns == newest_ns else 1)
        return True
