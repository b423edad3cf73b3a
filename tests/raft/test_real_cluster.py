"""Three real members: threads, SQLite files, mutual TLS over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.member import Ambiguous, NotLeader, NotServed, Refused, Unavailable
from raft.transaction import TransactionBuilder, chained, chained_version
from tests.raft.certificates import Authority
from tests.raft.members import LOOPBACK, SECONDS_MAX, STEADY, Cluster, cluster_of_three, names, until, write


def test_a_cluster_survives_its_leader_and_its_power(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path) as cluster:
            first = await cluster.write("one")
            assert names(first) == ["one"]  # a writer reads its own write at once
            await cluster.of_leader(lambda leader: leader.read_barrier())
            for host in cluster.hosts.values():
                await until(lambda host=host: names(host.member) == ["one"])  # type: ignore[misc]
                assert host.member.status().voters == ("a", "b", "c")
            await cluster.hosts[first.settings.node_id].stop()
            assert first.status().role == "stopped"
            left = "abc".replace(first.settings.node_id, "")
            await cluster.write("two", left)
            for name in left:
                await cluster.hosts[name].stop()
            for host in cluster.hosts.values():
                await host.start()
            third, _ = await cluster.of_leader(lambda leader: leader.read_barrier())
            assert names(third) == ["one", "two"]
            for host in cluster.hosts.values():
                await until(lambda host=host: names(host.member) == ["one", "two"])  # type: ignore[misc]

    trio.run(main)


def test_a_minority_refuses_and_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path) as cluster:
            leader = await cluster.write("before")
            me = leader.settings.node_id
            others = [name for name in "abc" if name != me]
            for name in others:
                await cluster.hosts[name].stop()
            with pytest.raises(NotServed):
                await write(leader, "lost")
            await until(lambda: not leader.status().quorum)
            with pytest.raises((NotLeader, Unavailable)):
                await write(leader, "refused")
            with pytest.raises((NotLeader, Unavailable)):
                await leader.read_barrier(0.5)
            await cluster.hosts[others[0]].start()
            healed = await cluster.write("after", me + others[0])
            assert {"before", "after"} <= set(names(healed))
            assert "refused" not in names(healed)

    trio.run(main)


def test_leadership_moves_on_request_and_followers_name_the_leader(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.leader()
            target = next(name for name in "abc" if name != leader.settings.node_id)
            await cluster.of_leader(lambda leads: leads.transfer_leadership(target))
            new = await cluster.leader()
            assert new.settings.node_id == target
            await until(lambda: leader.status().leader_id == target)
            with pytest.raises(NotLeader) as refused:
                await write(leader, "x")
            assert refused.value.leader_id == target
            with pytest.raises(Refused, match="no vote"):
                await new.transfer_leadership("nobody")
            # It may be refused until the new leader has heard the third one.
            await cluster.of_leader(lambda leads: leads.remove_voter(leader.settings.node_id), target)
            assert leader.settings.node_id not in new.status().voters
            with pytest.raises(Refused, match="hand the leadership over first"):
                await new.remove_voter(target)

    trio.run(main)


def test_a_voter_that_lost_its_disk_counts_for_nothing_until_it_was_removed_and_added(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path) as cluster:

            def leader_misses_logs_of(*lost: str) -> bool:
                seen = [host.member.status() for host in cluster.hosts.values()]
                return any(one.role == "leader" and one.quorum and one.lost_logs == lost for one in seen)

            leader = await cluster.write("one")
            lost = next(name for name in "bc" if name != leader.settings.node_id)
            sound = "abc".replace(lost, "")
            await cluster.hosts[lost].stop()
            shutil.rmtree(tmp_path / lost)
            await cluster.hosts[lost].start()
            await until(lambda: leader_misses_logs_of(lost))
            leader = await cluster.write("two", sound)
            other = sound.replace(leader.settings.node_id, "")
            assert cluster.hosts[lost].member.status().role == "learner"
            assert names(cluster.hosts[lost].member) == []
            # Two of three voters are up, and one of them has forgotten everything: no majority.
            await cluster.hosts[other].stop()
            with pytest.raises(NotServed):
                await leader.propose(TransactionBuilder().build("r-three", "test", 1), 2.0)
            await until(lambda: not leader.status().quorum)
            await cluster.hosts[other].start()
            await until(lambda: leader_misses_logs_of(lost))
            await cluster.of_leader(lambda leads: leads.remove_voter(lost), sound)
            await cluster.of_leader(lambda leads: leads.add_voter(cluster.peers[lost]), sound)
            await until(lambda: cluster.hosts[lost].member.status().role in ("follower", "leader"))
            await until(leader_misses_logs_of)
            await until(lambda: names(cluster.hosts[lost].member) == ["one", "two"])
            await cluster.hosts[other].stop()
            await cluster.write("four", leader.settings.node_id + lost)

    trio.run(main)


def test_role_changes_show_the_newest_status(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            await cluster.hosts["a"].start()
            with trio.fail_after(SECONDS_MAX):
                async for status in cluster.hosts["a"].member.role_changes():
                    if status.role == "leader" and status.quorum:
                        break
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_stranger_and_a_plain_connection_get_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            await cluster.hosts["a"].start()
            (tmp_path / "foreign").mkdir()
            foreign = Authority(tmp_path / "foreign").tls("b")
            member_of_cluster = cluster.authority.tls("worker")
            port = cluster.peers["a"].port
            for tls in (foreign, member_of_cluster):
                stream = trio.SSLStream(await trio.open_tcp_stream(LOOPBACK, port), tls.client_context())
                with trio.fail_after(SECONDS_MAX), contextlib.suppress(trio.BrokenResourceError):
                    await stream.do_handshake()
                    assert await stream.receive_some(1) == b""
                await trio.aclose_forcefully(stream)
            plain = await trio.open_tcp_stream(LOOPBACK, port)
            await plain.send_all(b"GET / HTTP/1.1\r\n\r\n" * 100)
            with trio.fail_after(SECONDS_MAX), contextlib.suppress(trio.BrokenResourceError):
                while await plain.receive_some(1000):
                    pass
            await plain.aclose()
            assert (await write(await cluster.leader("a"), "fine")).code == TransactionResult.OK
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_taken_port_and_damaged_state_are_said_in_the_status(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            with socket.socket() as taken:
                taken.bind((LOOPBACK, cluster.peers["a"].port))
                taken.listen()
                await cluster.hosts["a"].start()
                status = cluster.hosts["a"].member.status()
                assert status.role == "stopped" and "cannot listen" in status.error
                with pytest.raises(Unavailable, match="cannot listen"):
                    await write(cluster.hosts["a"].member, "x")
            await cluster.leader("a")  # it goes on by itself once the port is free
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "cluster.sqlite").write_bytes(b"garbage" * 1000)
            await cluster.hosts["b"].start()
            assert "cannot be opened" in cluster.hosts["b"].member.status().error
            nursery.cancel_scope.cancel()

    trio.run(main)


WRITER = """
import sys, json, trio
from pathlib import Path
from tests.raft.members import *
async def main():
    async with trio.open_nursery() as nursery:
        cluster = Cluster(Path(sys.argv[1]), nursery)
        await cluster.hosts["a"].start()
        leader = await cluster.leader("a")
        for number in range(100000):
            await write(leader, f"{sys.argv[2]}-{number}")
            print(json.dumps(f"{sys.argv[2]}-{number}"), flush=True)
trio.run(main)
"""


def test_a_killed_process_keeps_every_acknowledged_write(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for life in ("first", "second"):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), life],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout is not None
            acknowledged.extend(json.loads(process.stdout.readline()) for _ in range(40))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            rest, _ = process.communicate(timeout=10)
        acknowledged.extend(json.loads(line) for line in rest.splitlines() if line.endswith('"'))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            await cluster.hosts["a"].start()
            leader = await cluster.leader("a")
            await leader.read_barrier()
            assert set(acknowledged) <= set(names(leader))
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_an_idle_member_alone_uses_no_processor(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            await cluster.hosts["a"].start()
            await write(await cluster.leader("a"), "x")
            with contextlib.closing(sqlite3.connect(tmp_path / "a" / "cluster.sqlite")) as reader:
                written = "select count(*) from tenants where text is not null"
                await until(lambda: reader.execute(written).fetchone() == (1,))
            # Other tests of this process may have left threads, and garbage for a collector.
            (raft_thread,) = [thread.ident for thread in threading.enumerate() if thread.name == "raft"]
            clocks = [time.CLOCK_THREAD_CPUTIME_ID, time.pthread_getcpuclockid(raft_thread or 0)]
            used_seconds = []
            for _ in range(3):
                began = sum(map(time.clock_gettime, clocks))
                await trio.sleep(1.0)  # the window of the measurement
                used_seconds.append(sum(map(time.clock_gettime, clocks)) - began)
                if used_seconds[-1] < 0.01:
                    break
            assert min(used_seconds) < 0.01
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_an_ambiguous_write_is_settled_by_its_request_id(tmp_path: Path) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(tmp_path, nursery)
            await cluster.hosts["a"].start()
            leader = await cluster.leader("a")
            tenant = objects.Tenant(meta=objects.Meta(id="x", name="x"))
            transaction = TransactionBuilder().create(tenant).build("same", "test", 1)
            with pytest.raises(Ambiguous):
                await leader.propose(transaction, timeout_s=0)
            assert (await leader.propose(transaction)).code == TransactionResult.OK
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_chain_commits_in_order_and_ends_where_one_of_it_fails(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.leader()

            def named(name: str) -> objects.Tenant:
                return objects.Tenant(meta=objects.Meta(id="t", name=name))

            first = TransactionBuilder().create(named("1")).build("r1", "test", 1)
            upon = named("2")
            upon.meta.version = chained_version(0)
            second = TransactionBuilder().update(upon).build("r2", "test", 1)
            assert chained(second, first, 0)
            proposals = leader.propose_chain([first, second])
            results = [await proposal.result() for proposal in proposals]
            assert [result.code for result in results] == [TransactionResult.OK] * 2
            assert results[0].revision + 1 == results[1].revision
            stored = leader.store.get(objects.Tenant, "t")
            assert stored is not None and stored.meta.name == "2" and stored.meta.version == results[1].revision
            third = TransactionBuilder().create(named("3")).build("r3", "test", 1)  # it exists
            other = objects.Tenant(meta=objects.Meta(id="u", name="u"))
            fourth = TransactionBuilder().create(other).build("r4", "test", 1)
            assert chained(fourth, third, 0)
            results = [await proposal.result() for proposal in leader.propose_chain([third, fourth])]
            assert [result.code for result in results] == [TransactionResult.CONFLICT] * 2
            assert leader.store.get(objects.Tenant, "u") is None
            for proposal in proposals:
                proposal.close()
            follower = next(host.member for host in cluster.hosts.values() if host.member is not leader)
            refused = follower.propose_chain([first, second])
            with pytest.raises(NotLeader):
                await refused[1].result()

    trio.run(main)
