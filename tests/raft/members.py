"""Three real members for tests: threads, SQLite files, mutual TLS over loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import trio

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.member import Member, NotServed, Peer, RaftSettings
from raft.transaction import TransactionBuilder
from tests.raft.certificates import Authority

LOOPBACK = "127.0.0.1"
PORTS = range(10_000, 32_000)  # below those that the kernel gives to connections
# Elections are over in a moment; and they happen by themselves where a busy machine lets a thread stand still.
QUICK = {"heartbeat_ms": 50, "election_ms_min": 300, "election_ms_max": 600, "leader_silence_ms_max": 500}
# Who leads goes on leading for as long as its majority is there, also on a busy machine.
STEADY = {
    "heartbeat_ms": 50,
    "election_ms_min": 6000,
    "election_ms_max": 12_000,
    "leader_silence_ms_max": 9000,
    "connect_ms_max": 20_000,
    "connection_silence_ms_max": 20_000,
}
SECONDS_MAX = 30.0
T = TypeVar("T")


def free_port() -> int:
    """A TCP port of loopback that nobody has, and that no connection is given before it is listened on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class Host:
    """One member that can be started, stopped and started again from its folder."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.tls = cluster.authority.tls(name)
        self.member = Member(self._settings(), list(cluster.peers.values()), self.tls)
        self._scope: trio.CancelScope | None = None
        self._ended = trio.Event()

    def _settings(self) -> RaftSettings:
        return RaftSettings(
            self.cluster.folder / self.name,
            self.name,
            LOOPBACK,
            self.cluster.peers[self.name].port,
            bootstrap=self.name == "a",
            advertise_address=LOOPBACK,
            **self.cluster.timing,
        )

    async def start(self) -> None:
        self.member = Member(self._settings(), list(self.cluster.peers.values()), self.tls)
        self._ended = trio.Event()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as self._scope:
                await self.member.run(task_status)
            self._ended.set()

        await self.cluster.nursery.start(run)

    async def stop(self) -> None:
        assert self._scope is not None
        self._scope.cancel()
        await self._ended.wait()


class Cluster:
    """Members a, b and c with their ports and certificates; none of them runs yet."""

    def __init__(self, folder: Path, nursery: trio.Nursery, timing: Mapping[str, int] = QUICK) -> None:
        self.folder, self.nursery, self.timing = folder, nursery, timing
        self.authority = Authority(folder)
        self.peers = {name: Peer(name, LOOPBACK, free_port()) for name in "abc"}
        self.hosts = {name: Host(self, name) for name in "abc"}

    async def leader(self, among: str = "abc") -> Member:
        with trio.fail_after(SECONDS_MAX):
            while True:
                for name in among:
                    status = self.hosts[name].member.status()
                    if status.role == "leader" and status.quorum:
                        return self.hosts[name].member
                await trio.sleep(0.005)

    async def of_leader(self, ask: Callable[[Member], Awaitable[T]], among: str = "abc") -> tuple[Member, T]:
        """What the leader answers, and who that was. Whoever leads next is asked where it could not."""
        with trio.fail_after(SECONDS_MAX):
            while True:
                leader = await self.leader(among)
                try:
                    return leader, await ask(leader)
                except NotServed:
                    await trio.sleep(0.02)

    async def write(self, name: str, among: str = "abc") -> Member:
        """Has the leader write, and returns it. The request id makes repeats harmless."""
        leader, result = await self.of_leader(lambda leader: write(leader, name), among)
        assert result.code == TransactionResult.OK
        return leader


async def until(condition: Callable[[], bool], seconds_max: float = SECONDS_MAX) -> None:
    with trio.fail_after(seconds_max):
        while not condition():
            await trio.sleep(0.005)


@contextlib.asynccontextmanager
async def cluster_of_three(folder: Path, timing: Mapping[str, int] = QUICK) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(folder, nursery, timing)
        for host in cluster.hosts.values():
            await host.start()
        for name in "bc":
            await cluster.of_leader(lambda leader, peer=cluster.peers[name]: leader.add_voter(peer))  # type: ignore[misc]
        yield cluster
        nursery.cancel_scope.cancel()


async def write(member: Member, name: str) -> TransactionResult:
    tenant = objects.Tenant(meta=objects.Meta(id=name, name=name))
    return await member.propose(TransactionBuilder().create(tenant).build(f"r-{name}", "test", 1))


def names(member: Member) -> list[str]:
    return sorted(tenant.meta.id for tenant in member.store.table(objects.Tenant))
