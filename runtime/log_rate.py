"""How much a task may write to its log: lines and bytes a second, by two buckets. Pure.

What is more is left out, and a record of its own says from time to time how much that was.
"""

from __future__ import annotations

from runtime.log_format import STAMP_LENGTH, note

BURST_S = 5  # of what is allowed, that may come at once
NOTE_INTERVAL_S = 10.0  # while lines are left out all the time


class LineRate:
    """0: no bound."""

    def __init__(self, lines_per_s: int, bytes_per_s: int) -> None:
        self.left_out_lines = 0  # since the start
        self._rates = (lines_per_s, bytes_per_s)
        self._left = [float(lines_per_s * BURST_S), float(bytes_per_s * BURST_S)]
        self._seen_s = self._noted_s = 0.0
        self._missing = (0, 0)  # lines and bytes that no note has told of

    def admit(self, records: bytes, unix_ns: int) -> bytes:
        """Of whole records, those that may be kept, and a note behind them where one is due."""
        if not any(self._rates) or not records:
            return records
        self._fill(unix_ns / 1e9)
        kept, before = [], self._missing
        for record in records[:-1].split(b"\n"):
            size = len(record) - STAMP_LENGTH
            if all(not rate or left >= 1 for rate, left in zip(self._rates, self._left, strict=True)):
                self._left[0] -= 1
                self._left[1] -= size  # a long line is paid for by those after it
                kept.append(record + b"\n")
            else:
                self._missing = (self._missing[0] + 1, self._missing[1] + size)
                self.left_out_lines += 1
        due = unix_ns / 1e9 - self._noted_s >= NOTE_INTERVAL_S or self._missing == before
        return b"".join(kept) + (self.finish(unix_ns) if due else b"")

    def finish(self, unix_ns: int) -> bytes:
        """The note of what none has told of; empty where that is nothing."""
        lines, size = self._missing
        if not lines:
            return b""
        self._missing, self._noted_s = (0, 0), unix_ns / 1e9
        bounds = zip(self._rates, ("lines", "bytes"), strict=True)
        bound = " or ".join(f"{rate} {unit} a second" for rate, unit in bounds if rate)
        return note(f"{lines} lines ({size} bytes) were left out: the task may write {bound}", unix_ns)

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        for number, rate in enumerate(self._rates):
            self._left[number] = min(rate * BURST_S, self._left[number] + passed_s * rate)
