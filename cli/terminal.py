"""This side's terminal: raw mode, window size, and signals turned into bytes that a select can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is, Ctrl-C included; the terminal is put back however it ends."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def window_size(descriptor: int) -> tuple[int, int]:
    """(columns, rows); 80 x 24 where the terminal does not say."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


class SignalPipe:
    """While open, each of `numbers` writes its number as one byte to a pipe instead of what it does."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = {number: signal.signal(number, self._caught) for number in numbers}

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.write(number)

    def write(self, number: int) -> None:
        # A full pipe already holds thousands of signals that nobody has taken.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, bytes([number]))

    def read(self) -> bytes:
        try:
            return os.read(self.reader, 64)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Gives the signals their meaning back; the pipe is left to `release`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def release(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class KeySequence:
    """Watches what is typed for some keys one after the other, and holds them back until it is sure."""

    def __init__(self, keys: bytes) -> None:
        """Of no keys nothing is a sequence."""
        self._keys = keys
        self._held = b""
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """What of it, and of what was held back, is to be passed on; nothing after the sequence is."""
        passed = b""
        for number in data:
            if not self._keys:
                return data
            self._held += bytes([number])
            while not self._keys.startswith(self._held):
                passed, self._held = passed + self._held[:1], self._held[1:]
            if self._held == self._keys:
                self.complete = True
                return passed
        return passed


def parse_keys(text: str) -> bytes:
    """ "ctrl-p,ctrl-q" as bytes, as docker has it; "" is none. Raises ValueError."""
    found = b""
    for word in text.split(",") if text else []:
        key = word.removeprefix("ctrl-")
        if key != word and len(key) == 1 and ((key.isascii() and key.isalpha()) or key in "@[\\]^_"):
            found += bytes([ord(key.upper()) & 0x1F])
        elif len(word) == 1 and word.isascii() and word.isprintable():
            found += word.encode()
        else:
            raise ValueError(f"{word!r} is no key: one character, or ctrl- and a letter or one of @[\\]^_")
    return found
