"""Text to numbers with units, as Compose writes them. Every function raises ValueError with a sentence."""

from __future__ import annotations

import re
import shlex
import signal
from decimal import Decimal, InvalidOperation

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_DURATION_MS = {
    "ns": Decimal("0.000001"),
    "us": Decimal("0.001"),
    "µs": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
    "d": Decimal(86_400_000),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_DURATION_MS_MAX = 365 * 86_400_000
_SIZE_BYTES_MAX = 1 << 50
_CPUS_MAX = 1024

CAPABILITIES = frozenset(
    [
        "ALL",
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    ]
)


def duration_ms(text: str) -> int:
    """ "1m30s" -> 90000. A unit is required, as in Compose; "0" needs none."""
    stripped = text.strip()
    if stripped == "0":
        return 0
    total, position = Decimal(0), 0
    while position < len(stripped):
        match = _DURATION_PART.match(stripped, position)
        if match is None:
            break
        total += Decimal(match.group(1)) * _DURATION_MS[match.group(2)]
        position = match.end()
    if not stripped or position != len(stripped):
        raise ValueError(f'{text!r} is not a duration; write it like "90s" or "1m30s"')
    if total > _DURATION_MS_MAX:
        raise ValueError(f"{text!r} is longer than a year")
    return int(total)


def size_bytes(text: str) -> int:
    """ "512m" -> 536870912. Units are powers of 1024: b, k, m, g, t, also kb or kib."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is not a size; write it like "64m" or "2g"')
    value = int(Decimal(match.group(1)) * (1 << _SIZE_SHIFT[match.group(2).lower()]))
    if value > _SIZE_BYTES_MAX:
        raise ValueError(f"{text!r} is more than a pebibyte")
    return value


def decimal(text: str) -> Decimal | None:
    """None where it is no finite number, or below 0."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 else None


def cpu_millis(text: str) -> int:
    """ "0.5" -> 500, thousandths of a core."""
    value = decimal(text)
    if value is None:
        raise ValueError(f'{text!r} is not a number of cores; write it like "0.5"')
    if value > _CPUS_MAX:
        raise ValueError(f"{text!r} is more than {_CPUS_MAX} cores")
    millis = int(value * 1000)
    if value > 0 and millis == 0:
        raise ValueError(f"{text!r} is less than a thousandth of a core")
    return millis


def words(text: str) -> list[str]:
    """Splits a command as a shell would, without expanding anything."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into words: {str(error).lower()}") from error


def signal_name(text: str) -> str:
    """ "9", "KILL" or "SIGKILL" -> "SIGKILL"; real-time ones as "SIGRTMIN+3"."""
    name = text.strip().upper()
    if name.isdigit():
        try:
            return signal.Signals(int(name)).name
        except ValueError:
            raise ValueError(f"{text!r} is not the number of a signal") from None
    if not name.startswith("SIG"):
        name = f"SIG{name}"
    if re.fullmatch(r"SIGRT(MIN\+([1-9]|[12]\d|30)|MAX-([1-9]|[12]\d|30))", name):
        return name
    if name not in signal.Signals.__members__:
        raise ValueError(f"{text!r} is not a signal")
    return name


def capability(text: str) -> str:
    """ "cap_net_admin" -> "NET_ADMIN"."""
    name = text.strip().upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise ValueError(f"{text!r} is not a capability of Linux")
    return name
