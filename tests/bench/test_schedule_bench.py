"""The scheduler's benchmark on a small cluster: what it measures is a plan that holds."""

from __future__ import annotations

from bench.schedule import run


def test_all_tasks_are_placed_evenly_and_always_the_same() -> None:
    one, again = run(100, 800), run(100, 800)
    assert one.placed == 800
    assert (one.load, one.stranded, one.zone_gap_max) == (again.load, again.stranded, again.zone_gap_max)
    assert one.zone_gap_max <= 1
    assert max(one.load) <= 1
