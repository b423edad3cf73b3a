"""When a certificate is renewed, how long a failed try waits, and how loud it is: pure."""

from __future__ import annotations

import enum

RETRY_MS_MIN = 10_000
RETRY_MS_MAX = 3_600_000
WARN_LEFT_FRACTION = 1 / 4  # of its lifetime: a third is left when renewal begins
ALARM_LEFT_FRACTION = 1 / 10

_JITTER_FRACTION = 1 / 20


class Urgency(enum.IntEnum):
    """How a failed renewal is reported."""

    CALM = 0
    WARN = 1
    ALARM = 2
    EXPIRED = 3


def renewal_due_unix_ms(begins_unix_ms: int, expires_unix_ms: int, jitter: float) -> int:
    """At 2/3 of the lifetime, up to 1/20 of it later: `jitter` (0 to 1) spreads hosts that joined at once."""
    lifetime_ms = expires_unix_ms - begins_unix_ms
    return begins_unix_ms + round(lifetime_ms * (2 / 3 + _JITTER_FRACTION * jitter))


def retry_wait_ms(failures: int, left_ms: int, jitter: float) -> int:
    """The wait after the `failures`-th failure in a row: doubles from RETRY_MS_MIN to RETRY_MS_MAX, never
    more than a tenth of what is left, at least RETRY_MS_MIN; `jitter` (0 to 1) takes off up to a half."""
    doubled_ms = RETRY_MS_MIN << min(max(failures - 1, 0), 20)
    wait_ms = min(doubled_ms, RETRY_MS_MAX, max(RETRY_MS_MIN, left_ms // 10))
    return max(RETRY_MS_MIN, round(wait_ms * (1 - jitter / 2)))


def urgency(begins_unix_ms: int, expires_unix_ms: int, now_unix_ms: int) -> Urgency:
    """How near the end is, for who reports a failure."""
    left_ms = expires_unix_ms - now_unix_ms
    lifetime_ms = max(1, expires_unix_ms - begins_unix_ms)
    if left_ms <= 0:
        return Urgency.EXPIRED
    if left_ms < lifetime_ms * ALARM_LEFT_FRACTION:
        return Urgency.ALARM
    return Urgency.WARN if left_ms < lifetime_ms * WARN_LEFT_FRACTION else Urgency.CALM
