"""Answers from outside: kept for their time, and beyond it for when nobody answers (RFC 2308, 8767, 9520).

Any thread may ask; the clock is an argument, in seconds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from net.dns_response import Response

KEPT_BYTES_MAX = 16 << 20
KEPT_ANSWER_BYTES_MAX = 16 << 10
STALE_SECONDS_MAX = 86_400.0
STALE_TTL_SECONDS = 30  # RFC 8767, 4
RETRY_SECONDS = 30.0  # so long a stale answer is given without asking again (RFC 8767, 5: at least 30)
FAILURE_SECONDS = 2.0  # a failure is remembered (RFC 9520, 3.2: at least 1, at most 300)
FAILURES_MAX = 4096

# Question in lower case, DNSSEC wanted, no validation wanted, servers.
Key = tuple[bytes, bool, bool, tuple[str, ...]]


@dataclass(slots=True)
class Kept:
    response: Response
    since: float
    until: float
    retry_at: float = 0.0  # beyond `until`: not before this


class ResponseCache:
    """The least recently used goes first where there is no room."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._failed: OrderedDict[Key, float] = OrderedDict()

    def fresh(self, key: Key, now: float) -> tuple[Response, int] | None:
        """A response within its time, and its age in seconds."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or now >= kept.until:
                return None
            self._kept.move_to_end(key)
            return kept.response, int(now - kept.since)

    def stale(self, key: Key, now: float, *, without_asking: bool = False) -> Response | None:
        """A response that is, or may be, beyond its time; `without_asking`: only where a try has just failed."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            if now >= kept.until + STALE_SECONDS_MAX:
                self._drop(key)
                return None
            return kept.response if not without_asking or now < kept.retry_at else None

    def has_failed(self, key: Key, now: float) -> bool:
        """Whether nobody answered this just now."""
        with self._lock:
            return now < self._failed.get(key, 0.0)

    def keep(self, key: Key, response: Response, now: float) -> None:
        with self._lock:
            self._failed.pop(key, None)
            self._drop(key)
            if not response.lifetime_seconds or response.size_bytes > KEPT_ANSWER_BYTES_MAX:
                return
            self._kept[key] = Kept(response, now, now + response.lifetime_seconds)
            self.size_bytes += _size_bytes(key, response)
            while self.size_bytes > KEPT_BYTES_MAX:
                self._drop(next(iter(self._kept)))

    def note_failure(self, key: Key, now: float) -> None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                kept.retry_at = now + RETRY_SECONDS
                return
            self._failed[key] = now + FAILURE_SECONDS
            self._failed.move_to_end(key)
            if len(self._failed) > FAILURES_MAX:
                self._failed.popitem(last=False)

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= _size_bytes(key, kept.response)


def _size_bytes(key: Key, response: Response) -> int:
    return len(key[0]) + response.size_bytes
