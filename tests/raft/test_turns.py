"""When a member takes a turn, what may leave before the disk has it, and how frames get into the kernel."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing

from proto import objects_pb2 as objects
from raft.database import open_database
from raft.driver import Driver
from raft.entry import transaction_command
from raft.link import Frames, Line, secured
from raft.messages import Append, AppendReply, Message, Vote, VoteRequest
from raft.requests import AddVoter, Propose
from raft.settings import Peer, RaftSettings
from raft.transaction import TransactionBuilder
from raft.turns import Turns
from tests.raft.certificates import Authority

Sent = list[tuple[str, Message]]


class Leader:
    """A driver that leads itself and b, without any connection: b's answers are made up."""

    def __init__(self, folder: Path) -> None:
        settings = RaftSettings(folder, "a", "127.0.0.1", 1, bootstrap=True, advertise_address="127.0.0.1")
        self.database = open_database(folder / "state.sqlite")
        self.now = 0.0
        self.driver = Driver(settings, self.database, 0.0, lambda: 0.5)
        self.turn()
        self.driver.connected("b", True)
        self.driver.request(AddVoter("join", Peer("b", "127.0.0.1", 2)))
        for _ in range(20):
            self.turn()
            self.acknowledge()
        assert self.driver.consensus.voters == {"a", "b"}

    def turn(self) -> tuple[Sent, bool]:
        """What was sent at first, and whether the disk lacked something at that moment."""
        self.now += 0.06
        first: list[tuple[Sent, bool]] = []

        def send(messages: Sent) -> None:
            if messages and not first:
                first.append((list(messages), self.driver.journal.dirty))

        assert self.driver.turn(self.now, send).outbox == []
        return first[0] if first else ([], False)

    def acknowledge(self) -> None:
        journal, consensus = self.driver.journal, self.driver.consensus
        term, round_ = consensus.algorithm.term(), consensus.replication.round
        self.driver.deliver("b", AppendReply(term, journal.last_index + 1, True, False, round_), self.now)

    def propose(self, name: str) -> None:
        tenant = objects.Tenant(meta=objects.Meta(id=name, name=name))
        command = transaction_command(TransactionBuilder().create(tenant).build(name, "test", 1))
        self.driver.request(Propose(name, command))


def test_a_leader_sends_entries_while_its_disk_writes_and_counts_itself_only_afterwards(tmp_path: Path) -> None:
    leader = Leader(tmp_path)
    leader.propose("x")
    sent, unwritten = leader.turn()
    (append,) = [message for _, message in sent if isinstance(message, Append) and message.entries]
    assert unwritten
    assert append.entries[-1][1] == leader.driver.journal.last_index
    assert append.commit_index < append.entries[-1][1]
    assert leader.driver.store.get(objects.Tenant, "x") is None
    leader.acknowledge()
    leader.turn()
    assert leader.driver.store.get(objects.Tenant, "x") is not None


def test_a_disk_that_fails_after_entries_were_sent_ends_the_member_without_an_answer(tmp_path: Path) -> None:
    leader = Leader(tmp_path)
    leader.propose("x")
    leader.database.execute("pragma query_only=on")
    with pytest.raises(Exception, match="cannot be written"):
        leader.turn()
    with sqlite3.connect(tmp_path / "state.sqlite") as reader:
        (last,) = reader.execute("select max(log_index) from raft_log").fetchone()
    assert last == leader.driver.journal.last_index - 1


def test_a_vote_never_leaves_before_the_disk_has_it(tmp_path: Path) -> None:
    leader = Leader(tmp_path)
    term, last = leader.driver.consensus.algorithm.term(), leader.driver.journal.last_index
    leader.driver.deliver("b", VoteRequest(term + 1, last, term, handed_over=True), leader.now)
    sent, unwritten = leader.turn()
    assert ("b", Vote(term + 1)) in sent
    assert not unwritten


def test_requests_gather_while_earlier_ones_are_under_way_but_not_for_long(tmp_path: Path) -> None:
    leader = Leader(tmp_path)
    driver = leader.driver
    leader.propose("first")
    leader.turn()
    index = driver.journal.last_index
    leader.propose("second")
    driver.turn(leader.now + 0.001)
    assert driver.journal.last_index == index
    due = driver.wake_at(leader.now + 0.001)
    assert leader.now + 0.001 < due <= leader.now + 0.002
    driver.turn(due)
    assert driver.journal.last_index == index + 1


def test_turns_are_taken_at_once_and_never_within_another() -> None:
    async def main() -> None:
        taken: list[str] = []
        pauses = [0.0, 1000.0]

        def turn() -> None:
            taken.append("begins")
            turns.ring()
            taken.append("ends")

        turns = Turns(turn, lambda: pauses.pop(0) if len(pauses) > 1 else pauses[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.run)
            await trio.testing.wait_all_tasks_blocked()
            assert taken == ["begins", "ends"] * 2
            turns.ring()
            assert taken == ["begins", "ends"] * 3
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_turn_that_fails_for_who_rang_ends_the_run() -> None:
    async def main() -> None:
        broken = False

        def turn() -> None:
            if broken:
                raise OSError("the disk is gone")

        turns = Turns(turn, lambda: 1000.0)

        async def run() -> None:
            with pytest.raises(OSError, match="the disk is gone"):
                await turns.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            broken = True
            turns.ring()
            turns.ring()

    trio.run(main)


def test_what_the_kernel_does_not_take_at_once_arrives_later_whole_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        authority = Authority(tmp_path)
        settings = RaftSettings(tmp_path, "a", "127.0.0.1", 1)
        left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in _connected())
        lines: dict[str, Line] = {}

        async def secure(name: str, stream: trio.SocketStream, server_side: bool) -> None:
            tls = authority.tls(name)
            context = tls.server_context() if server_side else tls.client_context()
            lines[name] = await secured(stream, context, settings, server_side)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(secure, "a", left, True)
            nursery.start_soon(secure, "b", right, False)
        frames_sent = [bytes([number]) * 300_000 for number in range(1, 31)]
        for content in frames_sent:
            lines["a"].queue(len(content).to_bytes(4, "big") + content)
        assert not lines["a"].push()
        arrived: list[bytes] = []
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lines["a"].drain)
                arriving = Frames(lines["b"], settings.frame_bytes_max)
                while len(arrived) < len(frames_sent):
                    arrived += await arriving.receive()
        assert arrived == frames_sent
        assert lines["a"].waiting_bytes == 0
        for line in lines.values():
            line.close()
            line.close()

    trio.run(main)


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    for one in (left, right):
        one.setblocking(False)
    return left, right
