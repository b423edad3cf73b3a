"""A member's own clock: it drifts and jumps ahead, but like CLOCK_MONOTONIC it never goes back."""

from __future__ import annotations

FIRST_SECONDS = 100.0


class Clock:
    """`rate`: seconds it counts in one second of the simulation."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self._ahead = FIRST_SECONDS

    def read(self, now: float) -> float:
        """What it shows at `now` of the simulation."""
        return now * self.rate + self._ahead

    def when(self, shown: float) -> float:
        """When in the simulation it will show that, or did."""
        return (shown - self._ahead) / self.rate

    def jump(self, seconds: float) -> None:
        """The machine slept, or its time was set."""
        self._ahead += seconds

    def calm(self, now: float) -> None:
        """From now on it neither drifts nor jumps, and shows no less than before."""
        self._ahead, self.rate = self.read(now) - now, 1.0
