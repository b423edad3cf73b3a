"""Times and durations as options take them."""

from __future__ import annotations

import datetime

from cli.compose.values import duration_ms
from cli.failure import EXIT_USAGE, CommandFailed


def option_duration_ms(name: str, text: str) -> int:
    """ "10m" -> 600000; at least 1 ms."""
    try:
        found = duration_ms(text)
    except ValueError as error:
        raise CommandFailed(name, str(error), EXIT_USAGE) from error
    if found < 1:
        raise CommandFailed(name, f"{text!r} is no time at all", EXIT_USAGE)
    return found


def since_unix_ms(text: str, now_unix_ms: int, name: str = "--since") -> int:
    """A duration before now, or a date and time (local where it names no zone); 0 for ""."""
    if not text:
        return 0
    try:
        return max(1, now_unix_ms - duration_ms(text))
    except ValueError:
        pass
    try:
        return int(datetime.datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        message = f'{text!r} is neither a duration like "10m" nor a time like "2026-01-31T12:00:00"'
        raise CommandFailed(name, message, EXIT_USAGE) from None
