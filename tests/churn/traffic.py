"""A client's steady traffic for the churn: `python -m tests.churn.traffic tcp:ADDRESS:PORT udp:ADDRESS:PORT...`

Each second it asks every TCP target once and sends every UDP target a datagram, from a new port each time; one
connection to each TCP target stays open and silent for a while. Failures do not matter here: what the connections
leave in the kernel does. Ends at SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time

PERIOD_SECONDS = 1.0
KEPT_ROUNDS = 20  # a silent connection is then replaced
ANSWER_SECONDS_MAX = 0.5


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    targets = [target.split(":") for target in sys.argv[1:]]
    kept: dict[tuple[str, int], socket.socket] = {}
    number = 0
    while True:
        began = time.monotonic()
        for protocol, address, port in targets:
            place = (address, int(port))
            with contextlib.suppress(OSError):
                if protocol == "udp":
                    _send(place)
                    continue
                _ask(place)
                if number % KEPT_ROUNDS == 0:
                    if place in kept:
                        kept.pop(place).close()
                    kept[place] = socket.create_connection(place, ANSWER_SECONDS_MAX)
        number += 1
        time.sleep(max(0.0, PERIOD_SECONDS - (time.monotonic() - began)))


def _send(place: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.02)
        sender.connect(place)
        sender.send(b"churn\n")
        sender.recv(100)


def _ask(place: tuple[str, int]) -> None:
    with socket.create_connection(place, ANSWER_SECONDS_MAX) as connection:
        connection.settimeout(ANSWER_SECONDS_MAX)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            pass


if __name__ == "__main__":
    sys.exit(main())
