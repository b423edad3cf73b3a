"""One container's log while its FIFOs are read. Blocking parts are called in threads, under `lock`."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import trio

from runtime import fifo, log_format
from runtime.log_files import LogFiles
from runtime.log_format import LineSplitter
from runtime.log_intake import TAKE_BYTES_MAX, Intake
from runtime.log_policy import LogPolicy
from runtime.log_rate import LineRate
from runtime.log_reader import Position

log = logging.getLogger(__name__)

STREAMS = ("out", "err")
Output = trio.MemoryReceiveChannel[tuple[str, bytes]]


class _Stream:
    """Of what one FIFO gives: what is taken, cut into lines, and not in the log yet."""

    def __init__(self, folder: Path, name: str) -> None:
        self.intake = Intake(folder, name)
        self.splitter = LineSplitter(name)


class LiveLog:
    """`writers` False: nobody opens the FIFOs any more. Raises OSError, such as a full disk."""

    def __init__(
        self, folder: Path, readers: Mapping[str, fifo.FifoReader], policy: LogPolicy, *, writers: bool
    ) -> None:
        self.readers = readers
        self.writers = writers
        self.compress = policy.compress
        self.archiving = False
        self.to_archive = False  # files have become older since the last look
        self.taps: dict[
            Output, tuple[trio.MemorySendChannel[tuple[str, bytes]], float]
        ] = {}  # and how long they may stall
        self.scope = trio.CancelScope()
        self.lock = trio.Lock()
        self.changed = trio.Event()
        self.ended = trio.Event()
        self.lost_bytes = 0  # that the disk did not take, since it last took some
        self.files: LogFiles | None = None  # None: nothing is kept
        if policy.kept:
            self.files = LogFiles(folder, policy.size_bytes_max, policy.files_max, policy.age_s_max)
        self._rate = LineRate(policy.lines_per_s_max, policy.bytes_per_s_max)
        self._name = folder.name
        self._streams = {stream: _Stream(folder, stream) for stream in STREAMS}

    def load(self, stream: str) -> bool:
        """Takes up what an earlier daemon left of a stream; whether it added to the log. Blocking; raises OSError."""
        if self.files is None:
            return False
        left = self._streams[stream].intake.load(self._end)
        return self._append(stream, left) if left else False

    def take(self, stream: str) -> bytes:
        """Moves what a stream's FIFO holds into the log, at most TAKE_BYTES_MAX; what it was, empty at its end.

        Blocking. Raises BlockingIOError where it holds nothing. What the disk refuses is lost: the task goes on.
        """
        source = self.readers[stream].file
        if self.files is None:
            return os.read(source, TAKE_BYTES_MAX)
        part = self._streams[stream]
        try:
            data = part.intake.take(source, self._end)
        except BlockingIOError:
            raise
        except OSError as error:
            data = os.read(source, TAKE_BYTES_MAX)
            self._lose(part, data, error)
            return data
        try:
            if data:
                self._append(stream, data)
            self.lost_bytes = 0
        except OSError as error:
            self._lose(part, data, error)
        return data

    def finish(self, stream: str) -> bool:
        """A stream is at its end, and with it its last line; whether it added to the log. Blocking; raises OSError."""
        if self.files is None:
            return False
        part = self._streams[stream]
        now_ns = time.time_ns()
        records = self._rate.admit(part.splitter.finish(now_ns), now_ns) + self._rate.finish(now_ns)
        if records:
            self.files.append(records)
            part.intake.settle(b"", self._end)
        return bool(records)

    def note(self, words: str) -> bool:
        """Adds Fairway's own words to the log; whether that was possible. Blocking; raises OSError."""
        if self.files is None or self.ended.is_set():
            return False
        self.files.append(log_format.note(words, time.time_ns()))
        return True

    def close(self) -> None:
        if self.files is not None:
            self.files.close()
        for part in self._streams.values():
            part.intake.close()
        for send, _ in self.taps.values():
            send.close()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    @property
    def left_out_lines(self) -> int:
        return self._rate.left_out_lines

    @property
    def _end(self) -> Position:
        assert self.files is not None
        return Position(*self.files.end)

    def _append(self, stream: str, data: bytes) -> bool:
        assert self.files is not None
        part = self._streams[stream]
        now_ns = time.time_ns()
        records = self._rate.admit(part.splitter.feed(data, now_ns), now_ns)
        if records:
            self.files.append(records)
        part.intake.settle(part.splitter.unfinished, self._end)
        return bool(records)

    def _lose(self, part: _Stream, data: bytes, error: OSError) -> None:
        if self.lost_bytes == 0:
            log.error("log of task %s loses lines: %s", self._name, error)
        self.lost_bytes += len(data)
        part.splitter.give_up(data)
        with contextlib.suppress(OSError):
            part.intake.settle(b"", self._end)
