"""Shows progress while a command waits: redrawn on a terminal, a line a change in a pipe."""

from __future__ import annotations

import shutil
from typing import TextIO

from cli import output
from cli.progress_plan import Progress, news, render


class Live:
    """Writes to `stream`; on a terminal the lines shown last are replaced."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._redraws = stream.isatty()
        self._colour = output.colours(stream)
        self._before: Progress | None = None
        self._drawn: list[str] = []

    def show(self, progress: Progress) -> None:
        if self._redraws:
            self._redraw(progress)
        else:
            for line in news(self._before, progress):
                print(line, file=self.stream)
        self.stream.flush()
        self._before = progress

    def _redraw(self, progress: Progress) -> None:
        size = shutil.get_terminal_size()
        lines = render(progress, size.columns, self._colour)
        if len(lines) > size.lines - 1:  # what has scrolled away cannot be redrawn: show what is not done
            lines = lines[-(size.lines - 1) :]
        if lines == self._drawn:
            return
        if self._drawn:
            self.stream.write(f"\x1b[{len(self._drawn)}A\r\x1b[J")
        self.stream.write("".join(f"{line}\n" for line in lines))
        self._drawn = lines
