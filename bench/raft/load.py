"""What both sides measure in the same way: how many operations ended in a window, and how long each took."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

VALUE_BYTES = 200
WARM_UP_SHARE = 0.2  # of the window, before which nothing counts


class Measurement:
    """Operations of any number of clients over `seconds`, of which the first part only warms up."""

    def __init__(self, seconds: float, operations_each: int = 1) -> None:
        """`operations_each`: what one call of a client counts as."""
        self._operations_each = operations_each
        self._counts_from = time.perf_counter() + seconds * WARM_UP_SHARE
        self._until = time.perf_counter() + seconds
        self._took: list[float] = []

    def goes_on(self) -> bool:
        return time.perf_counter() < self._until

    def took(self, seconds: float) -> None:
        """One operation ended now."""
        if self._counts_from <= time.perf_counter() <= self._until:
            self._took.append(seconds)

    def result(self) -> dict[str, Any]:
        """As JSON: see `Load`."""
        ordered = sorted(self._took) or [float("nan")]
        return {
            "per_second": self._operations_each * len(self._took) / (self._until - self._counts_from),
            "p50_ms": statistics.median(ordered) * 1000,
            "p99_ms": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1000,
        }


@dataclass(frozen=True)
class Load:
    """What came of one window."""

    per_second: float
    p50_ms: float
    p99_ms: float
