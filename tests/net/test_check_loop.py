"""When the kernel is compared with what is wanted, in time that the test moves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing

from net import check_loop
from net.check_loop import CHECK_EVERY_SECONDS, CHECK_SECONDS_MAX, CheckLoop
from net.errors import NetworkError
from net.model import Counters


def refuse(*_: object) -> None:
    raise NetworkError("nobody is told of changes here")


def test_a_check_that_fails_is_repeated_soon_and_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes of others in a row: the second one comes while the first is being repaired, which then fails."""
    for listener in ("OutsideChanges", "TableChanges"):
        monkeypatch.setattr(check_loop, listener, refuse)
    fails = [True, False, *[True] * 12, False, False]
    times: list[float] = []
    counters = Counters()

    async def main() -> None:
        async def check() -> None:
            await trio.lowlevel.checkpoint()
            times.append(trio.current_time())
            if len(times) > len(fails):
                scope.cancel()
            elif fails[len(times) - 1]:
                raise NetworkError("it changed meanwhile")

        with trio.CancelScope() as scope:
            await CheckLoop("fw", check, counters).run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 1.0, "what is damaged by hand is whole again within 2 s"
    assert gaps[1] == pytest.approx(CHECK_EVERY_SECONDS)
    failed = gaps[2:14]
    assert failed == sorted(failed) and failed[0] <= 1.0
    assert failed[-1] == pytest.approx(CHECK_SECONDS_MAX)
    assert sum(failed[:6]) > 30, "a check that goes on failing costs little"
    assert gaps[14:] == pytest.approx([CHECK_EVERY_SECONDS] * len(gaps[14:]))
    assert counters.check_failure_count == 13
