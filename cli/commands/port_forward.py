"""`port-forward`: TCP connections to ports here go on to a task, each by a stream of its own."""

from __future__ import annotations

import argparse
import contextlib
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from cli.commands.exec import find_task
from cli.connection import connect
from cli.failure import EXIT_USAGE, CommandFailed
from proto import hands_pb2

CONNECTIONS_MAX = 128  # at once; further ones wait to be accepted
CHUNK_BYTES = 64 << 10
_BACKLOG = 64


@dataclass(frozen=True)
class Forwarded:
    """`local` 0: any port that is free."""

    local: int
    remote: int

    @classmethod
    def read(cls, text: str) -> Forwarded:
        local, colon, remote = text.partition(":")
        numbers = (local or "0", remote) if colon else (local, local)
        if not all(each.isascii() and each.isdigit() and int(each) < 1 << 16 for each in numbers) or not int(
            numbers[1]
        ):
            raise CommandFailed("port-forward", f"{text!r} is not LOCAL:REMOTE, two TCP ports", EXIT_USAGE)
        return cls(int(numbers[0]), int(numbers[1]))


def port_forward(options: argparse.Namespace) -> int:
    ports = [Forwarded.read(text) for text in options.ports]
    cluster = connect(options)
    try:
        find_task(cluster, options.target, f"forward to {options.target}")
    finally:
        cluster.close()
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for port in ports:
            listener = stack.enter_context(_listen(options.address, port))
            selector.register(listener, selectors.EVENT_READ, port)
            host, number = listener.getsockname()[:2]
            shown = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
            print(f"Forwarding {shown} -> {options.target} port {port.remote}", flush=True)
        connections = stack.enter_context(contextlib.closing(_Connections(options)))
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(ConnectionError):  # it hung up before it was taken
                    connections.take(key.fileobj.accept()[0], key.data)


def _listen(address: str, port: Forwarded) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port.local), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CommandFailed(f"listen on {address} port {port.local}", f"{error.strerror or error}") from error


class _Connections:
    """A thread for each; gRPC has another that waits for what the client sends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def take(self, client: socket.socket, port: Forwarded) -> None:
        self._room.acquire()
        with self._lock:
            self._open.add(client)
        threading.Thread(target=self._serve, args=(client, port), daemon=True).start()

    def close(self) -> None:
        with self._lock:
            for client in self._open:
                _end(client)

    def _serve(self, client: socket.socket, port: Forwarded) -> None:
        target = self._options.target
        cluster = connect(self._options)  # of its own: when the host that is asked goes away the next one is asked
        try:
            start = hands_pb2.ForwardStart(target=target, port=port.remote)
            replies = cluster.stream(
                f"forward to {target} port {port.remote}", lambda control: control.Forward(_inputs(client, start))
            )
            with contextlib.closing(replies):
                for reply in replies:
                    if reply.end:
                        client.shutdown(socket.SHUT_WR)
                    else:
                        client.sendall(reply.data)
        except CommandFailed as failure:
            print(f"fairway: {failure}", file=sys.stderr, flush=True)
        except OSError:
            pass  # the client has hung up
        finally:
            _end(client)  # wakes the thread that reads of it
            cluster.close()
            with self._lock:
                self._open.discard(client)
                client.close()
            self._room.release()


def _inputs(client: socket.socket, start: hands_pb2.ForwardStart) -> Iterator[hands_pb2.ForwardInput]:
    """Ends without `end` where the connection broke: the task's side is then closed at once."""
    yield hands_pb2.ForwardInput(start=start)
    try:
        while data := client.recv(CHUNK_BYTES):
            yield hands_pb2.ForwardInput(data=data)
    except OSError:
        return
    yield hands_pb2.ForwardInput(end=True)


def _end(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
