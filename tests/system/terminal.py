"""Command lines that go on while a test looks at them: behind a pseudo-terminal, and between pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from abc import ABC, abstractmethod

from tests.system.cluster import ROOT, Cluster


class Client(ABC):
    """A command line that runs; `reader` has what it prints."""

    def __init__(self, child: subprocess.Popen[bytes], reader: int) -> None:
        self.child = child
        self.reader = reader
        self.seen = b""

    @abstractmethod
    def write(self, text: str) -> None:
        """Types it."""

    def expect(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text.encode() not in self.seen:
            data = self.look(deadline - time.monotonic())
            assert data is not None, f"no {text!r} in {self.seen!r}"
            assert data, f"it ended without {text!r}: {self.seen!r}"

    def look(self, seconds: float) -> bytes | None:
        """What it has printed since, added to `seen`; empty: it has ended, None: nothing came."""
        readable, _, _ = select.select([self.reader], [], [], max(0.0, seconds))
        if not readable:
            return None
        try:
            data = os.read(self.reader, 65536)
        except OSError:
            data = b""
        self.seen += data
        return data

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(timeout=10)


class Terminal(Client):
    """A command line behind a pseudo-terminal."""

    def __init__(self, cluster: Cluster, *arguments: str, host: str = "host-2") -> None:
        self.master, slave = pty.openpty()
        self.resize(90, 25)
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=_environment(cluster, host),
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(slave)
        super().__init__(child, self.master)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        super().close()
        os.close(self.master)


class Pipe(Client):
    """A command line between pipes, standard error and output together."""

    def __init__(self, cluster: Cluster, *arguments: str, host: str = "host-2") -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(cluster, host),
            cwd=ROOT,
        )
        assert child.stdout is not None
        super().__init__(child, child.stdout.fileno())

    def write(self, text: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(text.encode())
        self.child.stdin.flush()

    def close(self) -> None:
        super().close()
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        self.child.stdout.close()


def _environment(cluster: Cluster, host: str) -> dict[str, str]:
    return dict(
        os.environ,
        FAIRWAY_SOCKET=str(cluster.lab.socket(host)),
        FAIRWAY_CONFIG=str(cluster.folder / "config"),
        TERM="xterm",
        PYTHONUNBUFFERED="1",
    )
