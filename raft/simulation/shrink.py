"""Finds the few faults of a failing seed that matter: leaves out classes, then single faults, while it still fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raft.simulation.plan import CLASSES, Plan, plan_of, positions_of

RUNS_MAX = 150


@dataclass(frozen=True)
class Shrunk:
    """What is left out (`without`), which faults remain (`only`), and what then goes wrong."""

    without: tuple[str, ...]
    only: tuple[int, ...]
    violation: str
    runs: int

    def plan(self, seed: int) -> Plan:
        return plan_of(seed, self.without, self.only)


def shrink(seed: int, violation_of: Callable[[Plan], str], runs_max: int = RUNS_MAX) -> Shrunk:
    """`violation_of` runs a plan and returns its violation or "". ValueError where the seed does not fail."""
    return _Search(seed, violation_of, runs_max).result()


class _Search:
    def __init__(self, seed: int, violation_of: Callable[[Plan], str], runs_max: int) -> None:
        self._seed, self._violation_of, self._runs_max = seed, violation_of, runs_max
        self._runs = 0
        self._without: tuple[str, ...] = ()
        self._only = positions_of(plan_of(seed))
        self._violation = violation_of(plan_of(seed))
        if not self._violation:
            raise ValueError(f"seed {seed} does not fail")

    def result(self) -> Shrunk:
        self._leave_out_classes()
        self._leave_out_faults()
        self._leave_out_classes()
        return Shrunk(self._without, self._only, self._violation, self._runs)

    def _fails(self, without: tuple[str, ...], only: tuple[int, ...]) -> bool:
        if self._runs >= self._runs_max:
            return False
        self._runs += 1
        violation = self._violation_of(plan_of(self._seed, without, only))
        if violation:
            self._without, self._only, self._violation = without, only, violation
        return bool(violation)

    def _leave_out_classes(self) -> None:
        present = plan_of(self._seed, self._without).classes
        for name in (name for name in CLASSES if name in present):
            without = (*self._without, name)
            left = positions_of(plan_of(self._seed, without, self._only))
            self._fails(without, left)

    def _leave_out_faults(self) -> None:
        """Half of them, then quarters, and so on down to single ones."""
        size = (len(self._only) + 1) // 2
        while size:
            start = 0
            while start < len(self._only):
                if not self._fails(self._without, self._only[:start] + self._only[start + size :]):
                    start += size
            size = size // 2
