"""How the demonstration looks: headed sections, ticks and timings; colours on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


class Screen:
    """Prints to standard output; every line is complete when it is printed, so a pipe gets the same text."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty()
        self._began = time.monotonic()
        self._section = 0

    def _styled(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _print(self, text: str = "") -> None:
        print(text, flush=True)

    def section(self, title: str, text: str = "") -> None:
        """A numbered heading, and what is about to be seen."""
        self._section += 1
        self._print()
        self._print(self._styled(f"{self._section}. {title}", "1"))
        if text:
            self._print(self._styled(f"   {text}", "2"))

    def done(self, text: str, seconds: float | None = None) -> None:
        took = "" if seconds is None else self._styled(f"  {seconds:.1f} s", "2")
        self._print(f"   {self._styled('✓', '32')} {text}{took}")

    def bad(self, text: str) -> None:
        self._print(f"   {self._styled('✗', '31')} {text}")

    def note(self, text: str) -> None:
        self._print(f"     {self._styled(text, '2')}")

    def command(self, words: Sequence[str]) -> None:
        """A command, as the person would type it."""
        self._print(f"   {self._styled('$ ' + ' '.join(words), '36')}")

    def output(self, line: str) -> None:
        self._print(f"     {line}")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """The first row is the heading."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._print("     " + (self._styled(line, "2") if number == 0 else line))

    def finish(self) -> None:
        self._print()
        self._print(self._styled(f"That took {time.monotonic() - self._began:.0f} s.", "1"))
