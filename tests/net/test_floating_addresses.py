"""Floating addresses: where they go, how long the kernel keeps them, and that neighbours follow."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from net.floating_addresses import FloatingAddresses
from net.floating_plan import InterfaceAddress, announcements, device_for
from net.namespaces import within_namespace
from tests.net.held_namespaces import HeldNamespaces
from tests.net.world import DEADLINE_SECONDS, shell, wait_until, wait_until_carried

ADDRESS, ADDRESS_6 = "198.51.100.77", "2001:db8:77::77"


@pytest.mark.parametrize(
    ("address", "present", "device"),
    [
        ("192.0.2.9", [InterfaceAddress(2, "198.51.100.1", 24), InterfaceAddress(3, "192.0.2.1", 24)], 3),
        ("192.0.2.9", [InterfaceAddress(3, "192.0.2.1", 24), InterfaceAddress(4, "192.0.2.8", 29)], 4),
        ("203.0.113.9", [InterfaceAddress(2, "198.51.100.1", 24), InterfaceAddress(3, "192.0.2.1", 24)], 2),
        ("192.0.2.9", [InterfaceAddress(2, "198.51.100.1", 24), InterfaceAddress(3, "192.0.2.9", 32)], 2),
        ("2001:db8::9", [InterfaceAddress(2, "198.51.100.1", 24), InterfaceAddress(3, "2001:db8::1", 64)], 3),
        ("192.0.2.9", [InterfaceAddress(3, "203.0.113.1", 24)], None),
    ],
)
def test_the_interface_is_the_one_whose_subnet_holds_it(
    address: str, present: list[InterfaceAddress], device: int | None
) -> None:
    assert device_for(address, present, "198.51.100.1") == device


def test_announcements_are_frames_as_the_rfcs_have_them() -> None:
    mac = bytes.fromhex("020000000001")
    request, reply = announcements("192.0.2.9", mac)
    assert request == bytes.fromhex("ffffffffffff02000000000108060001080006040001") + mac + bytes(
        [192, 0, 2, 9]
    ) + bytes(6) + bytes([192, 0, 2, 9])
    assert reply[20:22] == b"\0\2"
    (advertisement,) = announcements("2001:db8::9", mac)
    assert advertisement[:14] == bytes.fromhex("33330000000102000000000186dd")
    assert advertisement[14 + 7] == 255
    words = [int.from_bytes(advertisement[at : at + 2]) for at in range(14 + 8, len(advertisement), 2)]
    total = sum(words) + 32 + 58  # the pseudo header's length and protocol
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@pytest.fixture
def namespaces() -> Iterator[dict[str, Path]]:
    """Two hosts and a client on one wire."""
    with HeldNamespaces() as held:
        places = {name: held.new() for name in ("a", "b", "client")}
        shell(places["client"], "ip link add br0 type bridge && ip link set br0 up && ip link set lo up")
        shell(places["client"], "ip addr add 198.51.100.50/24 dev br0; ip addr add 2001:db8:77::50/64 dev br0 nodad")
        for number, name in enumerate("ab", start=1):
            pid = places[name].parts[2]
            shell(
                places["client"],
                f"ip link add p{name} type veth peer name eth0 netns {pid} && ip link set p{name} master br0 up",
            )
            shell(
                places[name], f"ip addr add 198.51.100.{number}/24 dev eth0 && ip link set eth0 up && ip link set lo up"
            )
            shell(places[name], f"ip addr add 2001:db8:77::{number}/64 dev eth0 nodad")
            wait_until_carried(places["client"], f"p{name}")
        yield places


def is_neighbour(place: Path, address: str, mac: str) -> bool:
    return mac in neighbour(place, address)


def hold(place: Path, floating: FloatingAddresses, seconds: int, underlay: str) -> list[str]:
    wanted = {ADDRESS: seconds, ADDRESS_6: seconds} if seconds else {}
    taken, problems = within_namespace(place, lambda: floating.hold(wanted, underlay))
    assert not problems
    for address in taken:
        within_namespace(place, partial(floating.announce, address))
    return taken


def learned(place: Path, address: str) -> str:
    with contextlib.suppress(OSError):  # nobody listens: only its neighbour entry is wanted
        within_namespace(place, partial(socket.create_connection, (address, 9), DEADLINE_SECONDS)).close()
    return neighbour(place, address)


def neighbour(place: Path, address: str) -> str:
    return shell(place, f"ip neigh show to {address} | grep -o 'lladdr [0-9a-f:]*' || true").strip()


def seconds_left(place: Path) -> dict[str, int]:
    """Of the floating addresses that are there."""
    shown = re.findall(r"inet6? (\S+)/\d+ .*\n\s+valid_lft (\d+)sec", shell(place, "ip addr"))
    return {address: int(seconds) for address, seconds in shown if address in (ADDRESS, ADDRESS_6)}


def test_neighbours_follow_an_address_that_moves(namespaces: dict[str, Path]) -> None:
    first, second = FloatingAddresses(), FloatingAddresses()
    client = namespaces["client"]
    assert sorted(hold(namespaces["a"], first, 30, "198.51.100.1")) == [ADDRESS, ADDRESS_6]
    assert hold(namespaces["a"], first, 30, "198.51.100.1") == []
    before = {
        address: wait_until(partial(learned, client, address), f"a neighbour entry of {address}")
        for address in (ADDRESS, ADDRESS_6)
    }
    # The first host hangs: it does not even know that it has lost them.
    assert len(hold(namespaces["b"], second, 30, "198.51.100.2")) == 2
    mac = shell(namespaces["b"], "ip -o link show eth0 | grep -o 'ether [0-9a-f:]*'").split()[1]
    for address in (ADDRESS, ADDRESS_6):
        assert mac not in before[address]
        wait_until(partial(is_neighbour, client, address, mac), f"{address} at its new host")
    hold(namespaces["b"], second, 0, "198.51.100.2")
    assert ADDRESS not in shell(namespaces["b"], "ip addr")
    assert ADDRESS_6 not in shell(namespaces["b"], "ip addr")


def test_the_kernel_drops_what_is_not_held_again(namespaces: dict[str, Path]) -> None:
    floating, place = FloatingAddresses(), namespaces["a"]
    for seconds in (300, 200):
        hold(place, floating, seconds, "198.51.100.1")
        left = seconds_left(place)
        assert left.keys() == {ADDRESS, ADDRESS_6}
        assert all(seconds - 100 < each <= seconds for each in left.values())
    hold(place, floating, 1, "198.51.100.1")
    wait_until(lambda: not seconds_left(place), "the end")
    assert sorted(hold(place, floating, 1, "198.51.100.1")) == [ADDRESS, ADDRESS_6]


def test_a_host_without_a_place_for_it_says_so(namespaces: dict[str, Path]) -> None:
    floating = FloatingAddresses()
    taken, problems = within_namespace(namespaces["a"], lambda: floating.hold({"203.0.113.9": 5}, "192.0.2.200"))
    assert (taken, problems) == ([], ["floating address 203.0.113.9: no interface of this host has 192.0.2.200"])
