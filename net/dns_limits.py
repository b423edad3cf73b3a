"""How much work askers may cause; pure, time is an argument.

An asker has points, of which some come back with each window of time: an answer that is ready costs one, any other
several. All answers that have to be made have a share of the processor's time. Both may be saved up, so that a burst
is answered. What is over a limit gets no answer, which slows its asker down and costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from net.dns_answers import Packets, Ready

WINDOW_SECONDS = 0.1
POINTS_PER_WINDOW = 2_000  # 20,000 ready answers a second
POINTS_MAX = 20_000
MAKING_POINTS = 10  # 2,000 other answers a second
MAKING_SHARE_MAX = 0.5  # of a core, for all askers
MAKING_SECONDS_MAX = 1.0  # that may be saved up
ASKERS_MAX = 65_536


@dataclass(slots=True)
class AskerState:
    address: str
    points: int = POINTS_MAX
    packets: dict[bytes, Packets] = field(default_factory=dict)
    of: Ready | None = None  # which generation `packets` belongs to


class Limits:
    """The askers of one socket, by the four bytes of their address."""

    def __init__(self) -> None:
        self.askers: dict[bytes, AskerState] = {}
        self._window_began = 0.0
        self._making_seconds_left = MAKING_SECONDS_MAX

    def turn(self, now: float) -> None:
        """Call once a batch: gives back what the time that has gone by allows."""
        windows = int((now - self._window_began) / WINDOW_SECONDS)
        if windows < 1:
            return
        self._window_began = now
        left = self._making_seconds_left + windows * WINDOW_SECONDS * MAKING_SHARE_MAX
        self._making_seconds_left = min(MAKING_SECONDS_MAX, left)
        if len(self.askers) > ASKERS_MAX:
            self.askers.clear()
        for each in self.askers.values():
            each.points = min(POINTS_MAX, max(each.points, 0) + windows * POINTS_PER_WINDOW)

    def may_make(self, asker: AskerState) -> bool:
        """Takes the points for an answer that is not ready; False where the asker or all have used up theirs."""
        asker.points -= MAKING_POINTS
        return asker.points >= 0 and self._making_seconds_left > 0

    def made(self, seconds: float) -> None:
        self._making_seconds_left -= seconds
