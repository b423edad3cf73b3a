"""Addresses with ports, as people write them."""

from __future__ import annotations

import re

from daemon.errors import Refused

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")


def parse_place(text: str, default_port: int) -> tuple[str, int]:
    """(host, port) of "host", "host:port", "10.0.0.1:7445", "fd00::1" or "[fd00::1]:7445". Raises Refused."""
    text = text.strip()
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        host, port = text, None  # a bare IPv6 address
    else:
        host, separator, rest = text.partition(":")
        port = rest if separator else None
    number = int(port) if port and port.isascii() and port.isdecimal() else None
    well_formed = _HOST_NAME.fullmatch(host) or re.fullmatch(r"[0-9A-Fa-f:.]+", host)
    if not well_formed or (port is not None and (number is None or not 0 < number < 65_536)):
        raise Refused(f"{text!r} is not an address: write HOST, HOST:PORT or [IPV6]:PORT")
    return host, number if number is not None else default_port


def place_text(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
