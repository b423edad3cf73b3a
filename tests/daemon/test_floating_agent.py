"""When a host holds a floating address: given by the cluster, and only while it counts as up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ParamSpec, TypeVar

import pytest
import trio
from trio.testing import MockClock

from daemon.agent import floating_agent
from daemon.agent.floating_agent import FloatingAgent
from daemon.agent.host_view import HostView
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState

P = ParamSpec("P")
T = TypeVar("T")
ADDRESS = "198.51.100.77"
LEASE_S = 3.0


class Kernel:
    """Keeps lifetimes by trio's clock, as the real one does by its own."""

    def __init__(self) -> None:
        self.until_s: dict[str, float] = {}
        self.taken = 0

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self.until_s)

    def hold(self, wanted: Mapping[str, int], underlay_address: str) -> tuple[list[str], list[str]]:
        assert underlay_address == "192.0.2.1"
        now_s = trio.current_time()
        taken = [address for address, seconds in wanted.items() if seconds and self.until_s.get(address, 0) <= now_s]
        self.until_s = {
            address: now_s + seconds if seconds else self.until_s[address] for address, seconds in wanted.items()
        }
        self.taken += len(taken)
        return taken, []

    def has(self) -> bool:
        return self.until_s.get(ADDRESS, 0.0) > trio.current_time()

    def announce(self, address: str) -> None:
        assert address == ADDRESS


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(floating_agent, "FloatingAddresses", lambda: made)
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    yield made


async def at_once(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """In place of a thread, for which the clock of these tests would not wait."""
    await trio.lowlevel.checkpoint()
    return function(*arguments, **named)


def view_of(holder: str) -> HostView:
    view = HostView()
    node = objects.Node(meta=objects.Meta(id="me"), address="192.0.2.1")
    lease = objects.Lease(holder_id=holder, kind=objects.Lease.KIND_FLOATING_ADDRESS)
    items = [HostItem(key="node/me", node=node), HostItem(key=f"floating/{ADDRESS}", floating=lease)]
    view.apply(HostState(complete=True, revision=1, put=items))
    return view


def test_it_is_held_from_the_first_acknowledgement_to_the_end_of_the_lease(kernel: Kernel) -> None:
    async def main() -> None:
        agent = FloatingAgent(view_of("me"), "me", LEASE_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            await trio.sleep(1.0)
            assert not kernel.has()  # nothing was heard of the leader
            for _ in range(3):
                agent.acknowledged(trio.current_time())
                await trio.sleep(1.0)
                assert kernel.has()
            assert kernel.taken == 1
            sent_s = trio.current_time()
            agent.acknowledged(sent_s)
            while kernel.has() or kernel.held:
                await trio.sleep(0.05)
            assert 1.5 <= trio.current_time() - sent_s < LEASE_S
            await trio.sleep(1.0)
            assert not kernel.held
            agent.acknowledged(trio.current_time())
            await trio.sleep(0.3)
            assert kernel.has()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_what_is_given_to_another_goes_at_once(kernel: Kernel) -> None:
    async def main() -> None:
        view = view_of("me")
        agent = FloatingAgent(view, "me", LEASE_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            agent.acknowledged(trio.current_time())
            agent.changed()
            await trio.sleep(0.2)
            assert kernel.has()
            lease = objects.Lease(holder_id="other", kind=objects.Lease.KIND_FLOATING_ADDRESS)
            view.apply(HostState(revision=2, put=[HostItem(key=f"floating/{ADDRESS}", floating=lease)]))
            agent.changed()
            await trio.sleep(0.2)
            assert not kernel.held
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
