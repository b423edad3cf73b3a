"""One of three members goes on alone with what it has, and those that were lost follow it when they come back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trio

from raft.errors import MemberFault, NotServed
from raft.recovery import INDEX_STEP, begin_anew, keep_copy, read_member
from raft.store import Store
from tests.raft.members import STEADY, cluster_of_three, names, until, write

NOW_UNIX_MS = 1_790_000_000_000


def test_a_survivor_of_three_goes_on_and_the_lost_come_back_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path) as cluster:
            for number in range(20):
                leader = await cluster.write(f"before-{number}")
            survivor = next(one for one in "abc" if one != leader.settings.node_id)
            lost = [one for one in "abc" if one != survivor]
            host = cluster.hosts[survivor]
            await until(lambda: len(names(host.member)) == 20)
            await host.stop()
            await cluster.write("after-it-was-cut-off", "".join(lost))  # lost by the recovery
            for name in lost:
                await cluster.hosts[name].stop()
            folder = tmp_path / survivor
            stored = read_member(folder)
            assert len(list(stored.store.objects())) == 20
            assert sorted(peer.node_id for peer in stored.membership) == ["a", "b", "c"]
            keep_copy(folder, tmp_path / "copy")
            me = cluster.peers[survivor]
            begin_anew(folder, me, stored.store, stored.last_index, stored.term, NOW_UNIX_MS)
            assert read_member(tmp_path / "copy").last_index == stored.last_index
            await host.start()
            alone = await cluster.leader(survivor)
            assert alone.status().voters == (survivor,)
            assert len(names(alone)) == 20
            await write(alone, "alone")
            assert alone.store.revision > NOW_UNIX_MS
            assert alone.status().term > NOW_UNIX_MS // 1000
            for name in lost:
                await alone.follow(cluster.peers[name], wanted=True)
            for name in lost:  # both at once: they were a majority of the old cluster
                await cluster.hosts[name].start()
            recovered = survivor
            for name in lost:
                other = cluster.hosts[name].member
                await until(lambda other=other: names(other) == names(alone))  # type: ignore[misc]
                assert other.status().role == "learner"
                await cluster.of_leader(lambda leads, name=name: leads.add_voter(cluster.peers[name]), recovered)  # type: ignore[misc]
                recovered += name
            again = await cluster.write("together")
            assert "after-it-was-cut-off" not in names(again)
            for one in cluster.hosts.values():
                await until(lambda one=one: names(one.member) == names(again))  # type: ignore[misc]

    trio.run(main)


def test_an_old_majority_that_runs_after_all_follows_the_recovered_member(tmp_path: Path) -> None:
    """It was only behind a broken network: what it committed meanwhile is gone, and there is one cluster again."""

    async def main() -> None:
        async with cluster_of_three(tmp_path) as cluster:
            leader = await cluster.write("before")
            survivor = next(one for one in "abc" if one != leader.settings.node_id)
            others = [one for one in "abc" if one != survivor]
            host = cluster.hosts[survivor]
            await until(lambda: names(host.member) == ["before"])
            await host.stop()
            await cluster.write("behind-the-broken-network", "".join(others))
            stored = read_member(tmp_path / survivor)
            me = cluster.peers[survivor]
            begin_anew(tmp_path / survivor, me, stored.store, stored.last_index, stored.term, NOW_UNIX_MS)
            await host.start()
            recovered = host.member

            def followed() -> bool:
                return all(names(cluster.hosts[one].member) == names(recovered) for one in others)

            with trio.fail_after(60):
                while not followed():  # as the daemon's leader does, again and again (daemon/leader/voters.py)
                    if recovered.status().role == "leader":
                        for one in others:
                            with contextlib.suppress(NotServed):
                                await recovered.follow(cluster.peers[one], wanted=True)
                    await trio.sleep(0.1)
            await until(lambda: recovered.status().role == "leader")
            assert names(recovered) == ["before"]
            for one in others:
                assert cluster.hosts[one].member.status().role == "learner"

    trio.run(main)


def test_a_running_member_can_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of_three(tmp_path, STEADY) as cluster:
            leader = await cluster.write("one")
            stored = await trio.to_thread.run_sync(read_member, tmp_path / leader.settings.node_id)
            assert [name for name, _ in stored.store.objects()] == ["tenants"]
            assert (await write(leader, "two")).code == 0

    trio.run(main)


def test_a_member_that_never_had_the_state_cannot_be_recovered(tmp_path: Path) -> None:
    with pytest.raises(MemberFault, match="cannot be read"):
        read_member(tmp_path / "nowhere")


def test_a_new_state_can_begin_in_an_empty_folder(tmp_path: Path) -> None:
    from raft.settings import Peer

    me = Peer("a", "127.0.0.1", 7444)
    store = Store()
    store.revision = 41
    begin_anew(tmp_path / "raft", me, store, 40, 7, 0)
    stored = read_member(tmp_path / "raft")
    assert stored.membership == (me,)
    assert stored.last_index == 41 + INDEX_STEP
    assert stored.unconfirmed_entries == 0
    assert stored.store.revision == 41
