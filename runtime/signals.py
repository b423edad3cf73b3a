"""Signals by name or number, as Compose files and operators write them."""

from __future__ import annotations

import signal

from runtime.errors import InvalidRequest

_SIGRTMIN = 34  # in glibc and musl; the first two are the C library's
_SIGRTMAX = 64


def number_of(name_or_number: str | int) -> int:
    """ "SIGTERM", "term", "15", 15, "SIGRTMIN+3" -> number; raises InvalidRequest for anything else."""
    text = str(name_or_number).strip().upper()
    if text.isdigit():
        number = int(text)
        if 1 <= number <= _SIGRTMAX:
            return number
        raise InvalidRequest(f"signal {name_or_number}: numbers are 1 to {_SIGRTMAX}")
    name = text if text.startswith("SIG") else f"SIG{text}"
    for base, sign, start in (("SIGRTMIN", "+", _SIGRTMIN), ("SIGRTMAX", "-", _SIGRTMAX)):
        if name == base:
            return start
        offset = name.removeprefix(base + sign)
        if offset != name and offset.isdigit():
            number = start + int(offset) if sign == "+" else start - int(offset)
            if _SIGRTMIN <= number <= _SIGRTMAX:
                return number
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidRequest(f"signal {name_or_number!r} is unknown; write SIGTERM or 15, say") from None
