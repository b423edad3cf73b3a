"""A kernel answers for a daemon that hangs, and for one that is not there."""

from __future__ import annotations

import socket

import pytest
import trio

from daemon.leader import knocking as knocking_module
from daemon.leader.knocking import KNOCKS_AT_ONCE_MAX, Knocking, answers
from proto import objects_pb2 as objects


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process itself may stand still for longer than a host is waited for."""
    monkeypatch.setattr(knocking_module, "ANSWER_TIMEOUT_S", 60.0)


def test_a_port_that_nobody_serves_answers_for_its_kernel() -> None:
    trio.run(ports_that_nobody_serves)


async def ports_that_nobody_serves() -> None:
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        port = hangs.getsockname()[1]
        assert await answers("127.0.0.1", port)  # refused: nobody listens yet
        hangs.listen()
        assert await answers("127.0.0.1", port)  # accepted by the kernel alone
    assert await answers("::1", port)
    assert not await answers("no address", port)


def test_many_silent_hosts_are_asked_a_bounded_number_at_once() -> None:
    trio.run(many_silent_hosts)


async def many_silent_hosts() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nodes = [
            objects.Node(meta=objects.Meta(id=f"n{i}"), address="127.0.0.1", api_port=nobody.getsockname()[1])
            for i in range(KNOCKS_AT_ONCE_MAX + 5)
        ]
        knocking = Knocking(lambda: 7.0)
        async with trio.open_nursery() as nursery:
            knocking.knock(nursery, nodes)
            knocking.knock(nursery, nodes)
            assert len(nursery.child_tasks) == KNOCKS_AT_ONCE_MAX
        assert set(knocking.answered_s.values()) == {7.0} and len(knocking.answered_s) == KNOCKS_AT_ONCE_MAX
        async with trio.open_nursery() as nursery:
            knocking.knock(nursery, nodes[-5:])
        assert len(knocking.answered_s) == len(nodes)
