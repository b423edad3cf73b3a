"""Which records of a log are asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from proto.host_pb2 import LogLine
from runtime import log_format

_STREAM_AT = log_format.STAMP_LENGTH + 1
_TAGS = {"stdout": b"out", "stderr": b"err"}


@dataclass(frozen=True)
class LogChoice:
    """All that is left out: all records, to the end."""

    tail_lines: int = -1  # only the last ones of those that are chosen otherwise; -1: all
    since_unix_ms: int = 0
    until_unix_ms: int = 0  # this moment included; 0: no end
    stream: str = ""  # "stdout" or "stderr"; empty: both

    @property
    def counts_all(self) -> bool:
        """Whether `tail_lines` counts all records that there are."""
        return not self.stream and not self.until_unix_ms

    def has_record(self, record: bytes) -> bool:
        """Whether a record, without its line end, is one of those that `tail_lines` counts."""
        if len(record) < _STREAM_AT + 3:
            return False
        if self.stream and record[_STREAM_AT : _STREAM_AT + 3] != _TAGS[self.stream]:
            return False
        if not self.until_unix_ms:
            return True
        # Stamps have one length and one zone: their order is that of their bytes.
        return record[: log_format.STAMP_LENGTH] <= log_format.stamp(self._until_ns)

    def has(self, line: LogLine) -> bool:
        if line.unix_ns < self.since_unix_ms * 1_000_000:
            return False
        if self.stream and line.standard_error != (self.stream == "stderr"):
            return False
        return not self.is_past(line)

    def is_past(self, line: LogLine) -> bool:
        return bool(self.until_unix_ms) and line.unix_ns > self._until_ns

    @property
    def _until_ns(self) -> int:
        return self.until_unix_ms * 1_000_000 + 999_999


ALL = LogChoice()
