"""Which addresses linger, and when they are gone: in time that the test moves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
import trio.testing

from net.desired_changes import DesiredIndex
from net.lingering import LINGER_SECONDS, Lingering
from net.model import DesiredNetwork
from tests.net.world import CONFIG, ENDPOINTS, FRONTENDS, HOSTS, NETWORKS

DESIRED = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, ())
FIRST = ENDPOINTS[0].address


def in_time_of_its_own(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_vanishes_is_gone_later_and_what_was_withdrawn_at_once() -> None:
    async def body() -> None:
        lingering, index = Lingering(), DesiredIndex()
        withdrawn = replace(ENDPOINTS[1], ready=False)
        lingering.hold(index.advance(replace(DESIRED, endpoints=(ENDPOINTS[0], withdrawn, *ENDPOINTS[2:]))), index)
        change = lingering.hold(index.advance(replace(DESIRED, endpoints=ENDPOINTS[2:])), index)
        assert (change.vanished, change.gone) == ([FIRST], [withdrawn.address])
        began = trio.current_time()
        assert not lingering.take()
        await lingering.wait()
        assert lingering.take().gone == [FIRST]
        assert trio.current_time() - began == pytest.approx(LINGER_SECONDS)
        with trio.move_on_after(100) as nothing_more:
            await lingering.wait()
        assert nothing_more.cancelled_caught

    in_time_of_its_own(body)


def test_what_another_task_has_is_gone_at_once() -> None:
    """Before anybody is sent to the new one: kernel.py forgets what is used again first."""

    async def body() -> None:
        lingering, index = Lingering(), DesiredIndex()
        lingering.hold(index.advance(DESIRED), index)
        lingering.hold(index.advance(replace(DESIRED, endpoints=ENDPOINTS[1:])), index)
        following = replace(ENDPOINTS[0], task_id="next")
        change = lingering.hold(index.advance(replace(DESIRED, endpoints=(following, *ENDPOINTS[1:]))), index)
        assert change.gone == [FIRST]
        assert index.reused(change.gone, change) == {FIRST}
        with trio.move_on_after(100) as nothing_more:
            await lingering.wait()
        assert nothing_more.cancelled_caught

    in_time_of_its_own(body)


def test_who_waits_learns_of_what_vanishes_meanwhile() -> None:
    async def body() -> None:
        lingering, index = Lingering(), DesiredIndex()
        index.advance(DESIRED)
        found: list[list[str]] = []

        async def wait() -> None:
            await lingering.wait()
            found.append(lingering.take().gone)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(1)
            lingering.hold(index.advance(replace(DESIRED, endpoints=ENDPOINTS[1:])), index)
        assert found == [[FIRST]]

    in_time_of_its_own(body)
