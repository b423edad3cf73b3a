"""Start, live and ready probes: what results lead to, by tables and for any sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.objects_pb2 import Probe
from runtime.probe_plan import (
    EARLY_INTERVAL_MS,
    HOLD_MS_MAX,
    PACES,
    STEADY_MS,
    Kind,
    Pace,
    ProbeState,
    after_probe,
    is_over,
    needed,
    pace_of,
    wait_ms,
)

PACE = Pace(interval_ms=2_000, timeout_ms=500, failures=3, successes=1)


def follow(
    kind: Kind, results: str, pace: Pace = PACE, state: ProbeState | None = None, began_ms: int = 0
) -> ProbeState:
    """`results`: + passed, - failed; one each interval."""
    state = state or ProbeState()
    for number, result in enumerate(results):
        state = after_probe(kind, pace, state, result == "+", began_ms + number * pace.interval_ms)
    return state


@pytest.mark.parametrize(
    ("kind", "results", "verdict"),
    [
        (Kind.START, "--", None),
        (Kind.START, "--+", True),
        (Kind.START, "---", False),
        (Kind.LIVE, "", None),
        (Kind.LIVE, "--+--", True),
        (Kind.LIVE, "+---", False),
        (Kind.LIVE, "---", False),
        (Kind.READY, "---------", None),  # never ready yet: nothing is lost
        (Kind.READY, "---+", True),
        (Kind.READY, "+--", True),
        (Kind.READY, "+---", False),
        (Kind.READY, "+---+", True),  # once is no flapping
    ],
)
def test_results_in_a_row_decide(kind: Kind, results: str, verdict: bool | None) -> None:
    assert follow(kind, results).verdict is verdict


def test_only_a_verdict_for_good_ends_the_probing() -> None:
    assert is_over(Kind.START, follow(Kind.START, "+")) and is_over(Kind.START, follow(Kind.START, "---"))
    assert is_over(Kind.LIVE, follow(Kind.LIVE, "+---")) and not is_over(Kind.LIVE, follow(Kind.LIVE, "+"))
    assert not any(is_over(Kind.READY, follow(Kind.READY, results)) for results in ("+", "+---", "---"))


def test_a_task_that_flaps_has_to_pass_twice_as_often_each_time() -> None:
    state, found = ProbeState(), []
    for _ in range(12):
        state = follow(Kind.READY, "---", state=state)
        count = 0
        while state.verdict is not True:
            state = after_probe(Kind.READY, PACE, state, True, 0)
            count += 1
        found.append(count)
    assert found[:6] == [1, 1, 2, 4, 8, 16]
    assert found[-1] == HOLD_MS_MAX // PACE.interval_ms


def test_a_failure_amid_the_successes_begins_anew() -> None:
    state = follow(Kind.READY, "+---+---")
    assert needed(PACE, state) == 2
    assert follow(Kind.READY, "+-+", state=state).verdict is False
    assert follow(Kind.READY, "+-++", state=state).verdict is True


def test_a_loss_after_a_steady_time_is_no_flapping() -> None:
    state = follow(Kind.READY, "+---+---++")
    later = follow(Kind.READY, "---", state=state, began_ms=STEADY_MS + 1_000_000)
    assert needed(PACE, later) == 1


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 5), st.integers(1, 5), st.integers(1, 600_000))
def test_what_is_asked_of_a_task_is_bounded(
    results: list[bool], failures: int, successes: int, interval_ms: int
) -> None:
    pace, state = Pace(interval_ms, 100, failures, successes), ProbeState()
    for number, passed in enumerate(results):
        before, state = state, after_probe(Kind.READY, pace, state, passed, number * interval_ms)
        assert successes <= needed(pace, state) <= max(successes, HOLD_MS_MAX // interval_ms)
        if before.verdict is True and state.verdict is False:
            assert not any(results[number + 1 - failures : number + 1])
        if before.verdict is not True and state.verdict is True:
            assert all(results[number + 1 - successes : number + 1])


def test_what_is_not_said_is_the_default_and_the_first_readiness_is_not_waited_for() -> None:
    assert pace_of(Kind.LIVE, Probe()) == PACES[Kind.LIVE]
    pace = pace_of(Kind.READY, Probe(interval_ms=60_000, successes=2))
    assert pace == Pace(60_000, PACES[Kind.READY].timeout_ms, PACES[Kind.READY].failures, 2)
    assert wait_ms(Kind.READY, pace, ProbeState()) == EARLY_INTERVAL_MS
    assert wait_ms(Kind.READY, pace, ProbeState(False)) == 60_000
