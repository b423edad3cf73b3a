"""Policies and ports on real hosts: which backend a connection gets, and where a port is open."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from net.lingering import LINGER_SECONDS
from net.model import Balance, Port
from tests.net.world import (
    CLIENT,
    DEADLINE_SECONDS,
    ENDPOINTS,
    FRONTENDS,
    HOSTS,
    TRIES_MAX,
    World,
    ask,
    ask_by_udp,
    connect,
    shell,
)

VIP = "10.120.0.1"
BRIDGE_PORT_DISABLED, BRIDGE_PORT_FORWARDING = 0, 3  # linux/if_bridge.h


def web(world: World, *ports: Port, policy: str = "random", local_first: bool = False, **changes: Any) -> None:
    frontend = replace(FRONTENDS[0], balance=Balance(policy, local_first), ports=ports or FRONTENDS[0].ports)
    world.apply(frontends=(frontend, *FRONTENDS[1:]), **changes)


def names(namespace: Path, address: str, port: int, count: int) -> list[str]:
    return [ask(namespace, address, port)[0] for _ in range(count)]


def is_shut(namespace: Path, address: str, port: int) -> bool:
    try:
        connect(namespace, address, port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_taking_turns_is_exact_for_vip_and_published_port(world: World) -> None:
    web(world, policy="round-robin")
    for namespace, address, port in ((world.tasks["one1"], VIP, 80), (world.client, "198.51.100.2", 8080)):
        found = names(namespace, address, port, 9)
        assert Counter(found) == {"web.1": 3, "web.2": 3, "web.3": 3}
        assert found[:3] == found[3:6] == found[6:]
    web(world, policy="round-robin", endpoints=ENDPOINTS[1:])
    assert Counter(names(world.client, "198.51.100.2", 8080, 8)) == {"web.2": 4, "web.3": 4}


def test_weights_are_shares(world: World) -> None:
    weighed = tuple(replace(each, weight=8) if each.task_id == "web2" else each for each in ENDPOINTS)
    web(world, policy="weighted", endpoints=weighed)
    found = Counter(names(world.client, "198.51.100.1", 8080, 100))
    # 8 of 10; the chance to be out of these bounds is below one in 10^5.
    assert 62 <= found["web.2"] <= 95


def test_a_client_stays_with_its_backend_whatever_host_it_comes_by(world: World) -> None:
    shell(world.client, "ip addr add 198.51.100.51/32 dev eth0; ip addr add 198.51.100.52/32 dev eth0")
    web(world, policy="source-hash")
    for number in (1, 2, 3):
        assert len(set(names(world.client, f"198.51.100.{number}", 8080, 8))) == 1
    everywhere = {names(world.client, f"198.51.100.{number}", 8080, 1)[0] for number in (1, 2, 3)}
    everywhere |= {ask_by_udp(world.client, f"198.51.100.{number}", 8081)[0] for number in (1, 2, 3)}
    (chosen,) = everywhere
    others = tuple(each for each in ENDPOINTS if each.task_name.startswith("web") and each.task_name != chosen)
    web(world, policy="source-hash", endpoints=tuple(each for each in ENDPOINTS if each is not others[0]))
    assert set(names(world.client, "198.51.100.1", 8080, 4)) == {chosen}
    web(world, policy="source-hash", endpoints=others)
    assert len(set(names(world.client, "198.51.100.1", 8080, 4))) == 1


def test_local_first_stays_on_the_host_then_in_the_zone(world: World) -> None:
    zones = {"node1": "a", "node2": "b", "node3": "a"}
    hosts = tuple(replace(each, zone=zones[each.node_id]) for each in HOSTS)
    here = tuple(replace(each, zone=zones[each.node_id]) for each in ENDPOINTS)
    web(world, local_first=True, hosts=hosts, endpoints=here)
    for number in (1, 2, 3):
        assert set(names(world.client, f"198.51.100.{number}", 8080, 6)) == {f"web.{number}"}
    web(world, local_first=True, hosts=hosts, endpoints=here[1:])
    assert set(names(world.client, "198.51.100.1", 8080, 6)) == {"web.3"}
    web(world, local_first=True, hosts=hosts, endpoints=(here[1],))
    assert set(names(world.client, "198.51.100.1", 8080, 6)) == {"web.2"}


def test_a_port_at_one_address_is_open_there_only(world: World) -> None:
    here = Port("tcp", 80, 9001, address="198.51.100.1")
    loopback = Port("tcp", 80, 9002, address="127.0.0.1")
    web(world, here, loopback)
    assert ask(world.client, "198.51.100.1", 9001)[1] == CLIENT
    assert is_shut(world.client, "198.51.100.2", 9001)
    assert is_shut(world.hosts[0].namespace, "127.0.0.1", 9001)
    for host in world.hosts:
        assert ask(host.namespace, "127.0.0.1", 9002)[0].startswith("web.")
    assert is_shut(world.client, "198.51.100.1", 9002)
    web(world, here, loopback, endpoints=())
    assert is_shut(world.client, "198.51.100.1", 9001)


def test_two_services_share_a_port_by_their_addresses(world: World) -> None:
    one = replace(FRONTENDS[1], ports=(Port("tcp", 80, 9001, address="198.51.100.2"),))
    first = replace(FRONTENDS[0], ports=(Port("tcp", 80, 9001, address="198.51.100.1"),))
    world.apply(frontends=(first, one))
    assert ask(world.client, "198.51.100.1", 9001)[0].startswith("web.")
    assert ask(world.client, "198.51.100.2", 9001)[0] == "one.1"


def test_a_port_of_host_mode_leads_to_the_task_of_that_host(world: World) -> None:
    port, by_udp = Port("tcp", 80, 9003, host_mode=True), Port("udp", 81, 9003, host_mode=True)
    web(world, port, by_udp, endpoints=ENDPOINTS[:2])
    for number in (1, 2):
        assert ask(world.client, f"198.51.100.{number}", 9003) == (f"web.{number}", CLIENT)
        assert ask_by_udp(world.client, f"198.51.100.{number}", 9003) == (f"web.{number}", CLIENT)
    assert is_shut(world.client, "198.51.100.3", 9003)
    assert ask(world.tasks["web1"], "198.51.100.1", 9003)[0] == "web.1"  # itself
    withdrawn = (replace(ENDPOINTS[0], ready=False), ENDPOINTS[1])
    web(world, port, by_udp, endpoints=withdrawn)
    assert is_shut(world.client, "198.51.100.1", 9003)
    assert ask(world.client, "198.51.100.2", 9003)[0] == "web.2"


def test_without_a_vip_ports_of_host_mode_still_work(world: World) -> None:
    frontend = replace(FRONTENDS[0], vip="", ports=(Port("tcp", 80, 9003, host_mode=True),))
    world.apply(frontends=(frontend, *FRONTENDS[1:]))
    assert ask(world.client, "198.51.100.3", 9003) == ("web.3", CLIENT)


def test_what_people_see_of_it_can_be_listed(world: World) -> None:
    """nft gives up on expressions that it cannot put into words."""
    ports = (Port("tcp", 80, 9001), Port("sctp", 9, 9001), Port("tcp", 80, 9002, address="198.51.100.1"))
    for policy in ("round-robin", "source-hash", "weighted"):
        web(world, *ports, Port("tcp", 80, 9003, host_mode=True), policy=policy)
        listed = world.hosts[0].shell("nft list ruleset")
        assert "sctp . 9001" in listed
        assert "198.51.100.1 . tcp . 9002" in listed
        assert world.hosts[0].call("check") == []


@contextlib.contextmanager
def cut_off(world: World, number: int) -> Iterator[None]:
    """The switch hands no packet from or to a host."""
    try:
        shell(world.switch, f"bridge link set dev p{number} state {BRIDGE_PORT_DISABLED}")
        yield
    finally:
        shell(world.switch, f"bridge link set dev p{number} state {BRIDGE_PORT_FORWARDING}")


@pytest.mark.parametrize("place", ["task", "host"])
def test_connections_made_straight_to_a_task_on_a_host_that_is_cut_off_are_reset(world: World, place: str) -> None:
    asking = world.tasks["web1"] if place == "task" else world.hosts[0].namespace
    with connect(asking, "10.112.2.11") as lost, lost.makefile() as lines:
        assert lines.readline().startswith("web.2")
        with cut_off(world, 2):
            world.apply(endpoints=tuple(each for each in ENDPOINTS if each.node_id != "node2"))
            # What comes to nobody would be sent again for a quarter of an hour.
            with pytest.raises(ConnectionResetError):
                lost.sendall(b"gone?\n")
                lines.readline()
            with pytest.raises(ConnectionRefusedError):
                connect(asking, "10.112.2.11")


def test_a_host_that_is_not_heard_of_keeps_its_connections_for_a_moment(world: World) -> None:
    """Its daemon alone may be down: what its tasks were asked they answer. Nobody else is sent there."""

    def is_kept() -> bool:
        """False: it was looked at too late to say."""
        world.apply()
        with connect(world.tasks["web1"], "10.112.2.11") as kept, kept.makefile() as lines:
            assert lines.readline().startswith("web.2")
            began = time.monotonic()
            world.apply(endpoints=tuple(each for each in ENDPOINTS if each.node_id != "node2"))
            try:
                kept.sendall(b"still here\n")
                assert lines.readline() == "still here\n"
            except ConnectionResetError:
                assert time.monotonic() - began > LINGER_SECONDS
                return False
            assert "web.2" not in names(world.tasks["one1"], VIP, 80, 20)
            with pytest.raises(ConnectionResetError):
                while time.monotonic() - began < LINGER_SECONDS + DEADLINE_SECONDS:
                    kept.sendall(b"gone?\n")
                    lines.readline()
                    time.sleep(0.05)
            return True

    assert any(is_kept() for _ in range(TRIES_MAX))
