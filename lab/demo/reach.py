"""Asks addresses and says which answered; runs on a host of the lab, with the standard library only.

`python reach.py http://A:P/ redis://B:P ...` prints a JSON list: for each {"ok": .., "ms": .., "text": ..}.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_SECONDS = 3.0


def ask(url: str) -> str:
    """The answer's text; raises OSError where there is none."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http":
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return str(answer.read(65536).decode())
    address = (parts.hostname or "", parts.port or 0)
    with socket.create_connection(address, TIMEOUT_SECONDS) as link:
        link.sendall(b"PING\r\n")
        return link.recv(100).decode().strip()


def main() -> None:
    results: list[dict[str, object]] = []
    for url in sys.argv[1:]:
        began = time.monotonic()
        try:
            text, ok = ask(url), True
        except (OSError, ValueError) as error:
            text, ok = str(error), False
        results.append({"ok": ok, "ms": (time.monotonic() - began) * 1e3, "text": text})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
