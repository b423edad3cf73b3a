"""How much work askers may cause; pure, time is an argument.

Time goes by in windows. In each, an asker has a number of points, an answer that is ready costs one and any
other several; and all answers that have to be made together have a share of the time. What is over a limit gets
no answer, which slows its asker down, and costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from net.dns_answers import Packets, Ready

WINDOW_SECONDS = 0.1
POINTS_PER_WINDOW = 2_000  # 20,000 ready answers a second
MAKING_POINTS = 10  # 2,000 other answers a second
MAKING_SHARE_MAX = 0.5  # of a core, for all askers
ASKERS_MAX = 65_536


@dataclass(slots=True)
class AskerState:
    address: str
    points: int = POINTS_PER_WINDOW
    packets: dict[bytes, Packets] = field(default_factory=dict)
    of: Ready | None = None  # which generation `packets` belongs to


class Limits:
    """The askers of one socket, by the four bytes of their address."""

    def __init__(self) -> None:
        self.askers: dict[bytes, AskerState] = {}
        self._window_end = 0.0
        self._making_seconds_left = 0.0

    def turn(self, now: float) -> None:
        """Call once a batch: begins a new window when it is time."""
        if now < self._window_end:
            return
        self._window_end = now + WINDOW_SECONDS
        self._making_seconds_left = WINDOW_SECONDS * MAKING_SHARE_MAX
        if len(self.askers) > ASKERS_MAX:
            self.askers.clear()
        for each in self.askers.values():
            each.points = POINTS_PER_WINDOW

    def may_make(self, asker: AskerState) -> bool:
        """Takes the points for an answer that is not ready; False where the asker or all have used up theirs."""
        asker.points -= MAKING_POINTS
        return asker.points >= 0 and self._making_seconds_left > 0

    def made(self, seconds: float) -> None:
        self._making_seconds_left -= seconds
