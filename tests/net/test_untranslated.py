"""Who asked while no rule led it to a task gets one as soon as there is one, though it goes on from the same port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from net.model import Port
from net.namespaces import within_namespace
from tests.net.world import DEADLINE_SECONDS, ENDPOINTS, FRONTENDS, World, ipv6, succeeds, underlay_ipv6, wait_until

VIP, BY_UDP = "10.120.0.1", 81
PUBLISHED = 8081
HOST = "198.51.100.2"
# Another's table that has the kernel follow connections, also while ours is away.
OTHERS = (
    "nft 'table inet others { chain prerouting { type filter hook prerouting priority 0; ct state new counter; };"
    " chain output { type filter hook output priority 0; ct state new counter; }; }'"
)


class Asker:
    """Sends datagrams from one port, as programs do that open one socket and keep it."""

    def __init__(self, namespace: Path, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = within_namespace(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.connect((address, port))
        self._socket.settimeout(0.1)

    def answered(self) -> bool:
        with contextlib.suppress(OSError):  # nobody is there, says the host, or nothing at all
            self._socket.send(b"who?")
            return bool(self._socket.recv(4096))
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def askers(world: World, request: pytest.FixtureRequest) -> Iterator[list[Asker]]:
    made = [
        Asker(world.tasks["one1"], VIP, BY_UDP),
        Asker(world.tasks["one1"], ipv6(VIP), BY_UDP),
        Asker(world.client, HOST, PUBLISHED),
        Asker(world.client, underlay_ipv6(HOST), PUBLISHED),
    ]
    yield made
    for asker in made:
        asker.close()


def all_answered(askers: list[Asker]) -> bool:
    return all(asker.answered() for asker in askers)


def test_a_service_that_comes_later(world: World, askers: list[Asker]) -> None:
    world.apply(frontends=FRONTENDS[1:])
    assert not any(asker.answered() for asker in askers)
    world.apply()
    wait_until(lambda: all_answered(askers), "the service answers those that had asked before")


def test_a_port_that_is_published_later(world: World, askers: list[Asker]) -> None:
    world.apply(frontends=(replace(FRONTENDS[0], ports=(Port("tcp", 80, 8080),)), *FRONTENDS[1:]))
    assert not any(asker.answered() for asker in askers[2:])
    world.apply()
    wait_until(lambda: all_answered(askers), "the port leads to the service")


def test_tasks_that_get_ready_later(world: World, askers: list[Asker]) -> None:
    world.apply(endpoints=tuple(replace(each, ready=each.service_id != "id-web") for each in ENDPOINTS))
    assert not any(asker.answered() for asker in askers)
    world.apply()
    wait_until(lambda: all_answered(askers), "the tasks answer")


def connected(
    namespace: Path, port: int, to: tuple[str, int] = (HOST, 8080), seconds: float = DEADLINE_SECONDS
) -> bool:
    """From this port, over TCP."""
    with within_namespace(namespace, lambda: socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends at once, and frees it
        client.settimeout(seconds)
        client.bind(("0.0.0.0", port))
        with contextlib.suppress(OSError):
            client.connect(to)
            return True
    return False


def test_rules_that_somebody_took_away(world: World, askers: list[Asker]) -> None:
    # What was refused is remembered for 10 s of its own accord: too short to see on a busy machine who forgets it.
    world.hosts[1].shell("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_close=600")
    for process in world.hosts:
        process.shell(OTHERS)
        os.kill(process.process.pid, signal.SIGSTOP)  # or they would be back before anybody has asked
    try:
        for process in world.hosts:
            process.shell("nft delete table inet fairway_fw")
        assert not any(asker.answered() for asker in askers)
        assert not connected(world.client, 20_000)
    finally:
        for process in world.hosts:
            os.kill(process.process.pid, signal.SIGCONT)
            process.shell("nft delete table inet others")
    # On all hosts: one that leads a connection to a task where the rules are still away leads it nowhere.
    for process in world.hosts:
        listed = "nft list chain inet fairway_fw prerouting | grep -q vips"
        wait_until(partial(succeeds, process.namespace, listed), f"the rules are back at {process.namespace}")
    assert connected(world.client, 20_001)
    wait_until(lambda: connected(world.client, 20_000), "the port is led to tasks, though it was refused before")
    wait_until(lambda: all_answered(askers), "those too are led to tasks that were refused")


def test_rules_that_somebody_took_away_where_the_task_is(world: World) -> None:
    """Another host led the connection there: the answer goes back by it as soon as there are rules again."""
    by_the_first = ("198.51.100.1", 8082)  # its only task is on the third host
    host = world.hosts[2]
    assert connected(world.client, 20_010, by_the_first)
    host.shell(OTHERS)
    os.kill(host.process.pid, signal.SIGSTOP)
    try:
        host.shell("nft delete table inet fairway_fw")
        assert not connected(world.client, 20_011, by_the_first, 0.5)
    finally:
        os.kill(host.process.pid, signal.SIGCONT)
    wait_until(
        lambda: connected(world.client, 20_011, by_the_first, 1.0), "the port from which nothing was answered is"
    )
    host.shell("nft delete table inet others")
