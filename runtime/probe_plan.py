"""When to probe a task and what the results mean: start, live and ready probes. Pure.

Times are milliseconds of any one clock, handed in. A task that is ready again and again for a short while only has to
pass its ready probe for longer each time before it gets traffic: twice as often in a row as the time before, up to
HOLD_MS_MAX.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from proto.objects_pb2 import Probe

TIMEOUT_MS_DEFAULT = 3_000
EARLY_INTERVAL_MS = 1_000  # of a ready probe that has never passed: nobody waits for its interval
STEADY_MS = 600_000  # a loss of readiness after so long is no flapping
HOLD_MS_MAX = 300_000
FLAPS_MAX = 20


class Kind(enum.Enum):
    START = "start"
    LIVE = "live"
    READY = "ready"


@dataclass(frozen=True)
class Pace:
    """How often, and how many in a row decide."""

    interval_ms: int
    timeout_ms: int
    failures: int
    successes: int


PACES = {
    Kind.START: Pace(1_000, TIMEOUT_MS_DEFAULT, 120, 1),
    Kind.LIVE: Pace(10_000, TIMEOUT_MS_DEFAULT, 3, 1),
    Kind.READY: Pace(5_000, TIMEOUT_MS_DEFAULT, 3, 1),
}


@dataclass(frozen=True)
class ProbeState:
    verdict: bool | None = None  # None: it has never passed
    failures: int = 0  # in a row
    successes: int = 0  # in a row
    flaps: int = 0  # how often readiness was lost soon after it was won
    passed_since_ms: int = 0


def pace_of(kind: Kind, probe: Probe) -> Pace:
    """With the defaults of its kind for all that is not said."""
    usual = PACES[kind]
    return Pace(
        probe.interval_ms or usual.interval_ms,
        probe.timeout_ms or usual.timeout_ms,
        probe.failures or usual.failures,
        probe.successes or usual.successes,
    )


def wait_ms(kind: Kind, pace: Pace, state: ProbeState) -> int:
    """How long to wait before the next probe, counted from the end of the one before."""
    if kind is Kind.READY and state.verdict is None:
        return min(pace.interval_ms, EARLY_INTERVAL_MS)
    return pace.interval_ms


def needed(pace: Pace, state: ProbeState) -> int:
    """Successes in a row that make a failing probe pass."""
    longest = max(pace.successes, HOLD_MS_MAX // pace.interval_ms)
    return min(pace.successes << max(state.flaps - 1, 0), longest)


def after_probe(kind: Kind, pace: Pace, state: ProbeState, passed: bool, now_ms: int) -> ProbeState:
    """The state that a probe which ended now leads to. Of a start or live probe, False is for good."""
    if passed:
        successes = state.successes + 1
        after = replace(state, successes=successes, failures=0)
        if state.verdict is not True and successes >= needed(pace, state):
            return replace(after, verdict=True, passed_since_ms=now_ms)
        return after
    failures = state.failures + 1
    after = replace(state, failures=failures, successes=0)
    if failures < pace.failures or state.verdict is False:
        return after
    if kind is not Kind.READY:
        return replace(after, verdict=False)
    if state.verdict is None:
        return after  # it has never been ready, and nothing is lost
    steady = now_ms - state.passed_since_ms >= STEADY_MS
    return replace(after, verdict=False, flaps=1 if steady else min(state.flaps + 1, FLAPS_MAX))


def is_over(kind: Kind, state: ProbeState) -> bool:
    """Whether no further probe is made: a start probe has decided, a live probe has failed."""
    return state.verdict is False if kind is Kind.LIVE else kind is Kind.START and state.verdict is not None
