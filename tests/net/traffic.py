"""Traffic between two tasks that notices every packet and every connection that is lost, for tests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from net.namespaces import within_namespace

PORT = 9999
_STOP_SECONDS = 0.3  # for what is under way
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_RECEIVE_BUFFER_BYTES = 8 << 20  # seconds of datagrams: what a receiver that stands still loses is no loss on the way


class Traffic:
    """Numbered datagrams and one TCP connection with an echo, until `stop`."""

    def __init__(self, sender: Path, receiver: Path, address: str, datagrams_per_second: int = 500) -> None:
        self.sent = 0
        self.received: set[int] = set()
        self.echoes = 0
        self.failure = ""
        self.longest_silence_seconds = 0.0  # between two echoes
        self._interval_seconds = 1 / datagrams_per_second
        self._stopping = threading.Event()
        self._stop_receiving = threading.Event()
        self._in = within_namespace(receiver, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._in.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        self._in.bind(("0.0.0.0", PORT))
        self._in.settimeout(0.1)
        self._listener = within_namespace(receiver, lambda: socket.create_server(("0.0.0.0", PORT)))
        self._out = within_namespace(sender, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._out.connect((address, PORT))
        self._connection = within_namespace(sender, lambda: socket.create_connection((address, PORT), 5))
        self._accepted, _ = self._listener.accept()
        for each in (self._connection, self._accepted):
            each.settimeout(5)
        self._threads = [
            threading.Thread(target=work) for work in (self._send, self._receive, self._echo, self._converse)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> int:
        return self.sent - len(self.received)

    def stop(self) -> None:
        self._stopping.set()
        time.sleep(_STOP_SECONDS)
        self._stop_receiving.set()
        with contextlib.suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._in, self._listener, self._out, self._connection, self._accepted):
            each.close()

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                self._out.send(self.sent.to_bytes(8, "big"))
            except OSError as error:
                self.failure = self.failure or f"datagram {self.sent}: {error}"
            self.sent += 1
            # Never catches up on what it was late for: a burst is lost in queues that are as long as they should be.
            due = max(due + self._interval_seconds, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while not self._stop_receiving.is_set():
            with contextlib.suppress(OSError):
                self.received.add(int.from_bytes(self._in.recv(100), "big"))

    def _echo(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._accepted.recv(65536):
                self._accepted.sendall(data)

    def _converse(self) -> None:
        message = b"x" * 4000
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self._connection.sendall(message)
                missing = len(message)
                while missing:
                    part = self._connection.recv(missing)
                    if not part:
                        raise ConnectionError("closed")
                    missing -= len(part)
            except OSError as error:
                self.failure = self.failure or f"connection: {error}"
                return
            self.echoes += 1
            self.longest_silence_seconds = max(self.longest_silence_seconds, time.monotonic() - started)
            time.sleep(0.002)


@contextlib.contextmanager
def running_traffic(sender: Path, receiver: Path, address: str) -> Iterator[Traffic]:
    traffic = Traffic(sender, receiver, address)
    try:
        yield traffic
    finally:
        traffic.stop()
