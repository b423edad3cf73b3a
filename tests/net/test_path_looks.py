"""What is seen of routes, listeners, other packet filters, addresses and connections, in namespaces of the test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from net.address_conflict import interface_of, who_else_has
from net.connections_sweep import ConnectionsSweep, nobodys
from net.listeners import listeners
from net.model import DesiredNetwork, LocalTask
from net.namespaces import within_namespace
from net.netlink import PROTOCOL_ROUTE, Netlink
from net.other_filters import other_filters
from net.route_lookup import Decision, look_up
from tests.net.held_namespaces import HeldNamespaces
from tests.net.world import CONFIG, ENDPOINTS, HOSTS, ipv6, shell, wait_until_carried

T = TypeVar("T")
DESIRED = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, endpoints=ENDPOINTS, tasks=(LocalTask("new", "10.112.1.50"),))


class Space:
    """A host with `under` (198.51.100.1/24), wired to `far` of a neighbour that has no address yet."""

    def __init__(self, own: Path, neighbour: Path) -> None:
        self.own, self.neighbour = own, neighbour
        shell(self.own, f"ip link set lo up; ip link add under type veth peer name far netns {neighbour.parts[2]}")
        shell(self.own, "ip addr add 198.51.100.1/24 dev under; ip link set under up")
        shell(self.neighbour, "ip link set lo up; ip link set far up")
        wait_until_carried(self.own, "under")

    def run(self, command: str) -> str:
        return shell(self.own, command)

    def look(self, work: Callable[[], T]) -> T:
        return within_namespace(self.own, work)


@pytest.fixture
def space() -> Iterator[Space]:
    with HeldNamespaces() as namespaces:
        yield Space(namespaces.new(), namespaces.new())


def route_to(space: Space, address: str, *came_by: str) -> Decision:
    def work() -> Decision:
        with Netlink(PROTOCOL_ROUTE) as netlink:
            return look_up(netlink, address, *came_by)

    return space.look(work)


def test_routes_are_the_kernels_own_decision(space: Space) -> None:
    space.run("ip route add 10.5.0.0/16 via 198.51.100.9 mtu 1300; ip route add unreachable 10.7.0.0/16")
    space.run("ip rule add pref 50 to 10.5.6.0/24 blackhole")
    assert route_to(space, "198.51.100.7") == Decision("198.51.100.7", "under")
    assert route_to(space, "10.5.1.1") == Decision("10.5.1.1", "under", "198.51.100.9", 1300)
    assert route_to(space, "198.51.100.1").local
    assert "blackhole" in route_to(space, "10.5.6.1").error
    assert "unreachable" in route_to(space, "10.7.0.1").error
    assert "no route" in route_to(space, "10.99.1.1").error


def test_a_source_that_the_kernel_does_not_believe_is_said(space: Space) -> None:
    space.run("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter")
    space.run(
        "ip route add 10.5.0.0/16 via 198.51.100.9; ip link add other type veth peer name end; ip link set other up"
    )
    assert route_to(space, "10.5.1.1", "198.51.100.44", "under").device == "under"
    assert route_to(space, "10.5.1.1", "198.51.100.44", "other").error
    assert "missing" in route_to(space, "10.5.1.1", "198.51.100.44", "gone").error


def test_filters_of_others_are_listed_only_where_they_can_drop(space: Space) -> None:
    def chain(place: str, hook: str, policy: str) -> None:
        space.run(f"nft 'add chain {place} {{ type filter hook {hook} priority 0; policy {policy}; }}'")

    space.run("nft add table inet theirs; nft add table ip fairway_fw; nft add table ip open")
    chain("inet theirs shut", "forward", "drop")
    chain("inet theirs some", "input", "accept")
    chain("ip open every", "input", "accept")
    chain("ip fairway_fw ours", "input", "drop")
    space.run("nft add rule inet theirs some udp dport 9 drop; nft add rule ip open every counter accept")
    assert sorted(space.look(other_filters)) == [
        "table inet theirs, chain shut (policy drop)",
        "table inet theirs, chain some (has rules that drop)",
    ]


def test_listeners_have_their_addresses(space: Space) -> None:
    def listen() -> list[socket.socket]:
        loopback = socket.create_server(("127.0.0.1", 8001))
        everywhere = socket.create_server(("", 8002))
        both = socket.create_server(("", 8003), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("198.51.100.1", 8004))
        return [loopback, everywhere, both, datagrams]

    with contextlib.ExitStack() as stack:
        for each in space.look(listen):
            stack.enter_context(each)
        assert space.look(lambda: listeners("tcp")) == ["0.0.0.0:8002", "127.0.0.1:8001", "[::]:8003"]
        assert space.look(lambda: listeners("udp")) == ["198.51.100.1:8004"]


def test_another_machine_with_the_same_address_is_found(space: Space) -> None:
    assert space.look(lambda: interface_of("198.51.100.1"))[0] == "under"
    assert space.look(lambda: interface_of("198.51.100.77")) == ("", "")
    assert space.look(lambda: who_else_has("198.51.100.1")) == ""
    shell(space.neighbour, "ip addr add 198.51.100.1/24 dev far")
    mac = shell(space.neighbour, "ip -br link show far").split()[2]
    assert space.look(lambda: who_else_has("198.51.100.1")) == mac


def test_addresses_of_nobody_are_those_within_a_block_that_nobody_has() -> None:
    asked = ["10.112.1.11", "10.112.1.50", "10.112.1.1", "10.112.1.99", "10.112.9.9", "10.120.0.1", "192.0.2.1"]
    assert nobodys(asked, DESIRED) == {"10.112.1.99"}
    assert nobodys([ipv6(address) for address in asked[:-1]] + ["2001:db8::1"], DESIRED) == {"10.112.1.99"}


def test_connections_to_nobody_are_forgotten_at_the_second_look(space: Space) -> None:
    # A rule that looks at connections makes the kernel track them; the neighbour's address is one of our block.
    space.run("nft add table ip t; nft 'add chain ip t o { type filter hook output priority 0; }'")
    space.run("nft add rule ip t o ct state new")
    space.run("ip route add 10.112.1.0/24 dev under")
    shell(space.neighbour, "ip addr add 10.112.1.99/24 dev far; ip addr add 10.112.1.11/24 dev far")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for address in ("10.112.1.99", "10.112.1.11"):
                datagrams.sendto(b"x", (address, 9))

    space.look(send)
    sweep = ConnectionsSweep()
    assert space.look(lambda: sweep.sweep(DESIRED, 2)) == []
    assert space.look(lambda: sweep.sweep(DESIRED, 2)) == ["connections to 10.112.1.99, which no task has"]
    assert space.look(lambda: sweep.sweep(DESIRED, 2)) == []
    assert space.look(lambda: sweep.sweep(DESIRED, 2)) == []
