"""Amounts in words for messages: 512 MiB, 0.5 CPU, 2 hosts."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def bytes_text(count: int) -> str:
    """ "512 MiB", "1.5 GiB"; at most one digit after the point, cut and never rounded up."""
    value, unit = count, 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value //= 1024
        unit += 1
    tenths = count * 10 // 1024**unit
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} {_UNITS[unit]}" if tenth else f"{whole} {_UNITS[unit]}"


def cpu_text(millis: int) -> str:
    """ "1.5 CPU" of 1500 thousandths."""
    whole, rest = divmod(millis, 1000)
    return f"{whole}.{rest:03d}".rstrip("0") + " CPU" if rest else f"{whole} CPU"


def duration_text(milliseconds: int) -> str:
    """ "500 ms", "4 s", "2 min"."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.1f}".removesuffix(".0") + " s"
    return f"{milliseconds // 60_000} min"


def names_text(names: Sequence[str], noun: str, shown_max: int = 3) -> str:
    """ "host-1 and host-2", or "7 hosts" where there are more than `shown_max`."""
    if len(names) > shown_max:
        return f"{len(names)} {noun}"
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
