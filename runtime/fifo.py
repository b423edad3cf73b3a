"""FIFOs between the shim and the daemon: making, opening, reading and writing them under trio."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import trio

PIPE_SIZE_BYTES = 1024 * 1024
READ_SIZE_BYTES_MAX = 64 * 1024


def make(path: Path) -> None:
    """Makes the FIFO for root only; one that is there already is kept with what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)


class FifoReader:
    """The reading end. Opened before the shim opens its own ends, which waits for a reader."""

    def __init__(self, path: Path, pipe_size_bytes: int = PIPE_SIZE_BYTES) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Above /proc/sys/fs/pipe-max-size, or this user's share of it, the usual 64 KiB do.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, pipe_size_bytes)

    async def read(self) -> bytes:
        """What is there, at least one byte; empty once every writer has closed. One must have opened."""
        while True:
            try:
                data = os.read(self._file, READ_SIZE_BYTES_MAX)
            except BlockingIOError:
                data = b""
                await trio.lowlevel.wait_readable(self._file)
                try:
                    data = os.read(self._file, READ_SIZE_BYTES_MAX)
                except BlockingIOError:
                    continue
            return data

    async def read_after_open(self) -> bytes:
        """The first read: waits until there is a writer, where `read` would take none for the end."""
        await trio.lowlevel.wait_readable(self._file)
        return await self.read()

    async def wait(self) -> None:
        """Until there is something to read, or the end."""
        await trio.lowlevel.wait_readable(self._file)

    @property
    def file(self) -> int:
        """The descriptor; does not block."""
        return self._file

    def close(self) -> None:
        if self._file >= 0:
            trio.lowlevel.notify_closing(self._file)
            os.close(self._file)
            self._file = -1


class FifoWriter:
    """The writing end, of a process's standard input."""

    def __init__(self, path: Path) -> None:
        # O_RDWR where O_WRONLY would fail until there is a reader; nothing is read through it.
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def write(self, data: bytes) -> None:
        """Waits while the pipe is full; raises BrokenPipeError after `close`."""
        view = memoryview(data)
        while view:
            if self._file < 0:
                raise BrokenPipeError("standard input is closed")
            try:
                view = view[os.write(self._file, view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._file)

    def close(self) -> None:
        if self._file >= 0:
            trio.lowlevel.notify_closing(self._file)
            os.close(self._file)
            self._file = -1
