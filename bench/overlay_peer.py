"""Two ends of a conversation of 64 bytes each way over TCP: `serve ADDRESS PORT`, `ask ADDRESS PORT SECONDS`."""

from __future__ import annotations

import json
import socket
import sys
import time

MESSAGE = b"x" * 64


def serve(address: str, port: int) -> None:
    """Sends everything back, one connection after the other, until killed."""
    with socket.create_server((address, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := connection.recv(4096):
                    connection.sendall(data)


def ask(address: str, port: int, seconds: float) -> dict[str, float]:
    """Median and 99th percentile of a round trip, in microseconds."""
    taken = []
    with socket.create_connection((address, port), 5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            connection.sendall(MESSAGE)
            missing = len(MESSAGE)
            while missing:
                missing -= len(connection.recv(missing))
            taken.append(time.perf_counter() - started)
    taken.sort()
    return {"p50_us": taken[len(taken) // 2] * 1e6, "p99_us": taken[len(taken) * 99 // 100] * 1e6}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
