"""Numbers and times as people read them. Pure."""

from __future__ import annotations

import re
import time

from google.protobuf.descriptor import EnumDescriptor

_UNITS_S = (("y", 31_536_000), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def duration(milliseconds: int) -> str:
    """The two largest units at most, and one where it is long enough: "12s", "3m", "2h10m", "5d"."""
    seconds = max(0, milliseconds) // 1000
    for index, (unit, length) in enumerate(_UNITS_S):
        if seconds >= length:
            count, rest = divmod(seconds, length)
            if index + 1 < len(_UNITS_S) and count < 10 and unit != "m":
                below, below_length = _UNITS_S[index + 1]
                if rest // below_length:
                    return f"{count}{unit}{rest // below_length}{below}"
            return f"{count}{unit}"
    return "0s"


def age(unix_ms: int, now_unix_ms: int) -> str:
    return duration(now_unix_ms - unix_ms) if unix_ms else "-"


def size(count_bytes: int) -> str:
    """Powers of 1024, three digits: "512M", "1.5G"."""
    value = float(count_bytes)
    for unit in ("B", "K", "M", "G", "T", "P"):
        if value < 1000 or unit == "P":
            return f"{value:.1f}{unit}" if value < 10 and unit != "B" and value % 1 else f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError("the last unit always returns")


def cores(millis: int) -> str:
    return f"{millis / 1000:g}"


def enum(descriptor: EnumDescriptor, number: int) -> str:
    """TASK_STATE_RUNNING of TaskState -> "running"; "" for the unspecified one."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", descriptor.name).upper() + "_"
    word: str = value.name.removeprefix(prefix).lower().replace("_", "-")
    return "" if word == "unspecified" else word


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def timestamp(unix_ms: int) -> str:
    """Local time with its offset, to the millisecond."""
    local = time.localtime(unix_ms / 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{unix_ms % 1000:03d}{time.strftime('%z', local)}"
