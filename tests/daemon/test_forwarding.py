"""Calls that reach a host while nobody leads, or somebody is about to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from daemon.agent.leader_connection import Leader
from daemon.api.forwarding import CALLER_KEY, ELECTION_S_MAX, Forwarder
from daemon.errors import Kind, Refused

OTHER, SELF = Leader("other", "192.0.2.2", 7443), Leader("self", "192.0.2.1", 7443)


class Host:
    """A host that knows a leader, leads, or has a fault, as the test says."""

    def __init__(self) -> None:
        self.leads, self.fault = False, ""
        self.leader: Leader | None = None
        self.forwarder = Forwarder(lambda: self.leads, lambda: self.leader, lambda: self.fault, cast(Any, None), "self")

    async def runs_here(self, *, forwarded: bool = False) -> bool:
        """What `redirect` says where the call goes no further; Refused where it is refused."""
        metadata = ((CALLER_KEY, "operator"),) if forwarded else ()
        context = SimpleNamespace(invocation_metadata=lambda: metadata, time_remaining=lambda: None)
        caller = SimpleNamespace(actor="operator")
        return not await self.forwarder.redirect(
            cast(Any, None), cast(Any, caller), cast(Any, context), *[cast(Any, None)] * 3
        )


async def refused(host: Host, *, forwarded: bool = False) -> float:
    """After how many seconds."""
    began = trio.current_time()
    with pytest.raises(Refused) as found:
        await host.runs_here(forwarded=forwarded)
    assert found.value.kind is Kind.UNAVAILABLE
    return trio.current_time() - began


def run(body: Any) -> None:
    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("known", [None, SELF])
@pytest.mark.parametrize("forwarded", [False, True])
def test_a_call_waits_for_this_host_to_take_office(known: Leader | None, forwarded: bool) -> None:
    async def body() -> None:
        host = Host()
        host.leader = known

        async def elected() -> None:
            await trio.sleep(ELECTION_S_MAX / 2)
            host.leads = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(elected)
            assert await host.runs_here(forwarded=forwarded)

    run(body)


def test_who_has_waited_for_an_election_in_vain_waits_no_more() -> None:
    async def body() -> None:
        host = Host()
        assert ELECTION_S_MAX <= await refused(host) < ELECTION_S_MAX + 1
        assert await refused(host) == 0
        host.leads = True
        assert await host.runs_here()
        host.leads = False
        assert await refused(host) >= ELECTION_S_MAX  # the next time is another one

    run(body)


def test_a_call_is_passed_on_once_and_a_fault_is_said_at_once() -> None:
    async def body() -> None:
        host = Host()
        host.leader = OTHER
        assert await refused(host, forwarded=True) == 0
        host.leader, host.fault = None, "its disk is broken"
        assert await refused(host) == 0

    run(body)
