"""Server and client of `bench balance`, as programs: `server PORT`, `MEASURE ADDRESS PORT SECONDS`.

The client's first byte says what it wants: E(cho) of short messages, or D(ata) as fast as it goes. Prints JSON.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import threading
import time
from typing import Any

MESSAGE = b"m" * 64
CHUNK_BYTES = 1 << 20
CONNECT_SECONDS_MAX = 5.0


def serve(port: int) -> None:
    """Until killed. Echoes share one thread; each stream of data has its own, which the kernel works for."""
    waiting = selectors.EpollSelector()
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    waiting.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(connection, selectors.EVENT_READ)
                continue
            assert isinstance(key.fileobj, socket.socket)
            _answer(waiting, key.fileobj)


def _answer(waiting: selectors.BaseSelector, connection: socket.socket) -> None:
    try:
        asked = connection.recv(4096)
        if asked and asked[:1] != b"D":
            connection.send(asked)
            return
    except OSError:
        asked = b""
    waiting.unregister(connection)
    if asked:
        threading.Thread(target=_stream, args=(connection,), daemon=True).start()
    else:
        connection.close()


def _stream(connection: socket.socket) -> None:
    zeros = os.memfd_create("zeros")
    os.ftruncate(zeros, CHUNK_BYTES)
    try:
        while os.sendfile(connection.fileno(), zeros, 0, CHUNK_BYTES):
            pass
    except OSError:
        pass  # the client has enough
    finally:
        os.close(zeros)
        connection.close()


def _connect(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port), CONNECT_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def latency(address: str, port: int, seconds: float) -> dict[str, Any]:
    """Round trips of 64 bytes on one connection: a second, and microseconds each."""
    taken = []
    with _connect(address, port) as connection:
        end = time.perf_counter() + seconds
        before = time.perf_counter()
        while before < end:
            connection.send(MESSAGE)
            if len(connection.recv(4096)) != len(MESSAGE):
                raise OSError("the server ended the connection")
            after = time.perf_counter()
            taken.append(after - before)
            before = after
    taken.sort()
    middle, late = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    return {"rate": len(taken) / seconds, "p50_us": middle * 1e6, "p99_us": late * 1e6}


def throughput(address: str, port: int, seconds: float) -> dict[str, Any]:
    """Of one stream, in Gbit/s."""
    buffer = bytearray(CHUNK_BYTES)
    with _connect(address, port) as connection:
        connection.send(b"D")
        connection.recv_into(buffer)
        began = time.perf_counter()
        received = 0
        while time.perf_counter() < began + seconds:
            count = connection.recv_into(buffer)
            if not count:
                raise OSError("the server ended the stream")
            received += count
        return {"gbit_s": received * 8 / (time.perf_counter() - began) / 1e9}


def connections(address: str, port: int, seconds: float) -> dict[str, Any]:
    """One after the other, each with one message there and back: a second."""
    count = 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        with _connect(address, port) as connection:
            connection.send(MESSAGE)
            if not connection.recv(4096):
                raise OSError("the server ended the connection")
        count += 1
    return {"rate": count / (time.perf_counter() - began)}


MEASURES = {"latency": latency, "throughput": throughput, "connections": connections}


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
