"""Server and client of `bench balance`, as programs: `server PORT`, `MEASURE SECONDS NAME=ADDRESS:PORT ...`.

What the client sends first says what it wants: D(ata) as fast as it goes, or else its own words back. It goes to the
places in turns of a few hundredths of a second, so that whatever else the machine does meets all alike. Prints JSON.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator

Place = tuple[str, int]
TURN_SECONDS = 0.06
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


def _connect(place: Place) -> socket.socket:
    connection = socket.create_connection(place, CONNECT_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def turns(places: dict[str, Place], seconds: float) -> Iterator[tuple[str, float]]:
    """(place, when its turn ends), until each had its `seconds`."""
    for _ in range(max(round(seconds / TURN_SECONDS), 1)):
        for name in places:
            yield name, time.perf_counter() + TURN_SECONDS


def latency(places: dict[str, Place], seconds: float) -> dict[str, dict[str, float]]:
    """Round trips of 64 bytes on one connection: a second in the middle turn, and microseconds each."""
    taken: dict[str, list[float]] = {name: [] for name in places}
    rates: dict[str, list[float]] = {name: [] for name in places}
    open_connections = {name: _connect(place) for name, place in places.items()}
    for name, end in turns(places, seconds):
        connection, mine = open_connections[name], taken[name]
        before = began = time.perf_counter()
        count = len(mine)
        while len(mine) == count or before < end:
            connection.send(MESSAGE)
            if len(connection.recv(4096)) != len(MESSAGE):
                raise OSError("the server ended the connection")
            after = time.perf_counter()
            mine.append(after - before)
            before = after
        rates[name].append((len(mine) - count) / (before - began))
    found = {}
    for name, mine in taken.items():
        open_connections[name].close()
        mine.sort()
        found[name] = {"rate": statistics.median(rates[name]), "p99_us": mine[len(mine) * 99 // 100] * 1e6}
    return found


def throughput(places: dict[str, Place], seconds: float) -> dict[str, dict[str, float]]:
    """Of one stream, in Gbit/s in the middle turn."""
    buffer = bytearray(CHUNK_BYTES)
    rates: dict[str, list[float]] = {name: [] for name in places}
    streams = {name: _connect(place) for name, place in places.items()}
    for stream in streams.values():
        stream.send(b"D")
    for name, end in turns(places, seconds):
        stream = streams[name]
        # What piled up while others had their turn came for nothing.
        warm = time.perf_counter() + (end - time.perf_counter()) / 3
        while time.perf_counter() < warm:
            stream.recv_into(buffer)
        began = now = time.perf_counter()
        received = 0
        while not received or now < end:
            count = stream.recv_into(buffer)
            if not count:
                raise OSError("the server ended the stream")
            received += count
            now = time.perf_counter()
        rates[name].append(received * 8 / (now - began) / 1e9)
    for stream in streams.values():
        stream.close()
    return {name: {"gbit_s": statistics.median(rates[name])} for name in places}


def connections(places: dict[str, Place], seconds: float) -> dict[str, dict[str, float]]:
    """One after the other, each with one message there and back: a second in the middle turn."""
    rates: dict[str, list[float]] = {name: [] for name in places}
    for name, end in turns(places, seconds):
        count = 0
        began = now = time.perf_counter()
        while not count or now < end:
            with _connect(places[name]) as connection:
                connection.send(MESSAGE)
                if not connection.recv(4096):
                    raise OSError("the server ended the connection")
            count += 1
            now = time.perf_counter()
        rates[name].append(count / (now - began))
    return {name: {"rate": statistics.median(rates[name])} for name in places}


MEASURES = {"latency": latency, "throughput": throughput, "connections": connections}


def main(words: list[str]) -> None:
    if words[0] == "server":
        serve(int(words[1]))
    places = {}
    for word in words[2:]:
        name, _, place = word.partition("=")
        address, _, port = place.rpartition(":")
        places[name] = (address, int(port))
    print(json.dumps(MEASURES[words[0]](places, float(words[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
