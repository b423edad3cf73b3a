"""Whether a request to a registry is repeated, and after how long. Pure.

429 and 503 may carry Retry-After (RFC 9110, 10.2.3): seconds or a date. Docker Hub answers 429 where its limit of pulls
is reached, for hours: that is said and not waited for.
"""

from __future__ import annotations

import email.utils

TRIES_MAX = 5  # without a byte between them
WAIT_S_MIN = 0.5
WAIT_S_MAX = 15.0
ASKED_WAIT_S_MAX = 60.0  # more than this is not waited for
REPEATED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


def wait_s(attempt: int, chance: float) -> float:
    """Before attempt + 1, where nothing was asked for: doubles, and is spread by `chance` (0..1) over its half."""
    return min(WAIT_S_MIN * 2.0 ** (attempt - 1), WAIT_S_MAX) * (0.5 + chance / 2)


def asked_wait_s(retry_after: str, now_unix_s: float) -> float | None:
    """What a Retry-After header asks for; None where there is none, or it cannot be read."""
    text = retry_after.strip()
    if text.isdigit():
        return float(min(int(text), 10**9))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now_unix_s)


def repeat_after_s(status: int, retry_after: str, attempt: int, chance: float, now_unix_s: float) -> float | None:
    """How long to wait after the answer to attempt number `attempt` (from 1); None: the answer is final."""
    if status not in REPEATED_STATUSES or attempt >= TRIES_MAX:
        return None
    asked = asked_wait_s(retry_after, now_unix_s)
    if asked is None:
        return wait_s(attempt, chance)
    return asked if asked <= ASKED_WAIT_S_MAX else None
