"""What the leader tells hosts of each other's balancers: which revision all of them stand at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import trio
import trio.testing

from daemon.leader.sessions import Sessions
from proto import objects_pb2 as objects
from proto.host_pb2 import HostInstruction, HostReport
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel


@dataclass
class Told:
    """One host's end of a session."""

    node_id: str
    reports: trio.MemorySendChannel[HostReport]
    instructions: list[HostInstruction] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    async def take(self, instruction: HostInstruction) -> None:
        self.instructions.append(instruction)
        self.changed.set()
        self.changed = trio.Event()

    async def stands_at(self, revision: int) -> None:
        await self.reports.send(HostReport(network_revision=revision))

    async def told_state(self, revision: int) -> HostInstruction:
        """The instruction that brought this revision."""
        while True:
            for each in self.instructions:
                if each.HasField("state") and each.state.revision >= revision:
                    return each
            await self.changed.wait()

    async def told_all_stand_at(self, revision: int) -> None:
        while all(each.cluster_network_revision < revision for each in self.instructions):
            await self.changed.wait()


@asynccontextmanager
async def sessions_of(model: ClusterModel, *node_ids: str) -> AsyncIterator[list[Told]]:
    sessions = Sessions(SimpleNamespace(store=model.store), trio.current_time, lambda: 0)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run)
        hosts = []
        for node_id in node_ids:
            reports_in, reports_out = trio.open_memory_channel[HostReport](10)
            told = Told(node_id, reports_in)
            await told.stands_at(0)
            nursery.start_soon(sessions.serve, node_id, reports_out.receive, told.take)
            hosts.append(told)
        yield hosts
        nursery.cancel_scope.cancel()


def change(model: ClusterModel) -> int:
    model.apply(TransactionBuilder().put(objects.Policy(meta=objects.Meta(id=f"policy-{model.store.revision}"))))
    return model.store.revision


def test_a_host_does_not_stand_at_what_it_is_only_now_sent() -> None:
    """Else its task would be stopped before its own balancer has let go of it."""

    async def body() -> None:
        model = ClusterModel(1)
        async with sessions_of(model, "node-host-1") as [host]:
            first = await host.told_state(model.store.revision)
            await host.stands_at(first.state.revision)
            await host.told_all_stand_at(first.state.revision)
            revision = change(model)
            told = await host.told_state(revision)
            assert told.cluster_network_revision < revision
            await host.stands_at(revision)
            await host.told_all_stand_at(revision)

    with_limit(body)


def test_all_stand_at_what_the_last_of_them_stands_at() -> None:
    async def body() -> None:
        model = ClusterModel(2)
        async with sessions_of(model, "node-host-1", "node-host-2") as [first, second]:
            for host in (first, second):
                await host.stands_at((await host.told_state(model.store.revision)).state.revision)
            revision = change(model)
            await first.told_state(revision)
            await second.told_state(revision)
            await first.stands_at(revision)
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked()
            assert max(each.cluster_network_revision for each in first.instructions) < revision
            await second.stands_at(revision)
            await first.told_all_stand_at(revision)

    with_limit(body)


def with_limit(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        with trio.fail_after(60):
            await body()

    trio.run(run)
