"""The line that a process has begun and not ended, kept beside its log so that `kill -9` of the daemon cannot lose it.

folder/out.unfinished and err.unfinished: `NUMBER OFFSET LENGTH` on a line of its own, then LENGTH bytes of text.
NUMBER and OFFSET are the end of the log when the text was kept: where the log has a later record of the same
stream, the line was ended after all and only this file did not learn of it. Blocking; called in threads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runtime import log_reader
from runtime.log_reader import Position


class UnfinishedLine:
    """Of one stream ("out" or "err") of one task; made without touching the disk until there is something to keep."""

    def __init__(self, folder: Path, stream: str) -> None:
        self._folder = folder
        self._stream = stream
        self._path = path_of(folder, stream)
        self._file = -1
        self.kept = b""

    def load(self) -> bytes:
        """What an earlier daemon left; empty where that is nothing, is outdated or is torn."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return b""
        head, _, text = content.partition(b"\n")
        try:
            number, offset_bytes, length = map(int, head.split())
        except ValueError:
            return b""
        if length > len(text) or self._ended_since(Position(number, offset_bytes)):
            return b""
        self.kept = text[:length]
        return self.kept

    def keep(self, text: bytes, end: Position) -> None:
        """`text` stands for the line now, b"" for none; `end` is where the log ends. Raises OSError."""
        if text == self.kept:
            return
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = b"%d %d %d\n%s" % (end.number, end.offset_bytes, len(text), text)
        os.pwrite(self._file, content, 0)  # what an older, longer text leaves behind it does not count
        os.ftruncate(self._file, len(content))
        self.kept = text

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if not self.kept:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _ended_since(self, position: Position) -> bool:
        wanted = self._stream == "err"
        while True:
            lines, after = log_reader.read_batch(self._folder, position)
            if any(line.standard_error == wanted for line in lines):
                return True
            if after == position:
                return False
            position = after


def path_of(folder: Path, stream: str) -> Path:
    return folder / f"{stream}.unfinished"
