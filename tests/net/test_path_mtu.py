"""Paths that swallow large packets without a word are found, and what tasks send fits them from then on."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
import trio.testing

from net.model import DesiredNetwork, Encryption, Host
from net.namespaces import within_namespace
from net.path_mtu import PathMtu
from net.path_mtu_plan import (
    HOSTS_A_ROUND_MAX,
    REDUCED_A_ROUND_MAX,
    largest_bytes,
    narrowed,
    route_mtu_bytes,
    sample,
    sections,
)
from tests.net.world import CONFIG, DEADLINE_SECONDS, HOSTS, World, connect, running_world, shell, wait_until

PLAIN = DesiredNetwork(CONFIG, HOSTS[0], HOSTS)
ENCRYPTED = replace(PLAIN, config=replace(CONFIG, encryption=Encryption(1, (1,))))
OVER_IPV6 = replace(PLAIN, local=replace(HOSTS[0], address="2001:db8::1"))


# ---- what is planned -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "packet_bytes", "mtu_bytes"),
    [
        (PLAIN, 1500, 1450),
        (PLAIN, 1400, 1350),
        (ENCRYPTED, 1500, 1390),
        (ENCRYPTED, 1400, 1278),
        (OVER_IPV6, 1400, 1330),
    ],
)
def test_routes_leave_room_for_what_is_put_around_a_packet(
    desired: DesiredNetwork, packet_bytes: int, mtu_bytes: int
) -> None:
    route = route_mtu_bytes(desired, packet_bytes)
    assert mtu_bytes - 16 < route <= mtu_bytes
    assert largest_bytes(desired, route, 65535) <= packet_bytes


@pytest.mark.parametrize("carried", [576, 577, 1000, 1279, 1400, 1498, 1499])
def test_a_search_finds_the_size_to_the_byte_in_a_few_steps(carried: int) -> None:
    through, swallowed, steps = 576, 1500, 0
    while tried := sections(through, swallowed):
        assert tried == sorted(tried) and through < tried[0] and tried[-1] < swallowed
        through, swallowed = narrowed(tried, {size for size in tried if size <= carried}, through, swallowed)
        steps += 1
    assert (through, swallowed) == (carried, carried + 1)
    assert steps <= 4


def many(count: int) -> list[Host]:
    return [replace(HOSTS[1], node_id=f"n{number}", ordinal=number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30, 999])
def test_every_host_has_its_turn_and_a_round_costs_the_same_in_a_large_cluster(count: int) -> None:
    hosts = many(count)
    reduced = {host.node_id for host in hosts[:100]}
    seen: set[str] = set()
    for number in range(-(-count // HOSTS_A_ROUND_MAX)):
        chosen = sample(hosts, number, reduced)
        assert len(chosen) <= HOSTS_A_ROUND_MAX + REDUCED_A_ROUND_MAX
        assert len({host.node_id for host in chosen}) == len(chosen)
        seen |= {host.node_id for host in chosen}
    assert seen == {host.node_id for host in hosts}


class Path:
    """Answers as a path that carries packets of `carried` bytes would; 0: none at all."""

    def __init__(self) -> None:
        self.carried = 1500
        self.lost = 0  # of the next probes, whatever their size
        self.applied: list[dict[str, int]] = []
        self.prober = PathMtu(self.probe, lambda: None, self.apply)

    async def probe(self, address: str, packet_bytes: int, seconds: float) -> float | None:
        if self.lost:
            self.lost -= 1
            return None
        return 0.001 if packet_bytes <= self.carried else None

    async def apply(self, path_mtus: object) -> None:
        self.applied.append(dict(path_mtus))  # type: ignore[call-overload]

    def look(self, *, later_seconds: float = 0) -> dict[str, int]:
        async def main() -> None:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(self._now + later_seconds)
            await self.prober.round(0, replace(PLAIN, hosts=HOSTS[:2]), 1450, 1500)

        trio.run(main, clock=trio.testing.MockClock())
        self._now += later_seconds
        return {host: reduced.packet_bytes for host, reduced in self.prober.reduced.items()}

    _now = 0.0


def test_a_path_is_reduced_found_anew_and_whole_again() -> None:
    path = Path()
    assert path.look() == {}
    assert path.applied == []
    path.carried = 1300
    assert path.look() == {"node2": 1300}
    assert path.applied == [{"node2": 1250}]
    path.carried = 1100
    assert path.look(later_seconds=1) == {"node2": 1100}
    path.carried = 1400
    assert path.look(later_seconds=1) == {"node2": 1100}, "a little more room is looked for now and then"
    assert path.look(later_seconds=60) == {"node2": 1400}
    path.carried = 1500
    assert path.look(later_seconds=1) == {}
    assert path.applied[-1] == {}


def test_a_lost_packet_or_a_path_that_is_down_says_nothing_of_its_size() -> None:
    path = Path()
    path.lost = 3
    assert path.look() == {}
    path.carried = 0
    assert path.look() == {}
    path.carried = 1300
    path.look()
    path.carried = 0
    assert path.look(later_seconds=1) == {"node2": 1300}
    assert path.applied == [{"node2": 1250}]


# ---- real hosts ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("path-mtu")) as made:
        for process in made.hosts:  # the switch sees packets as a wire carries them, not in bundles
            process.shell("ip link set eth0 gso_max_segs 1")
        yield made


def swallow(world: World, above_bytes: int) -> None:
    """Between host 1 and host 2, both ways; 0: nothing."""
    rules = "".join(
        f"; add rule bridge hole forward ip saddr {one.address} ip daddr {other.address} "
        f"meta length gt {above_bytes} drop"
        for one, other in ((HOSTS[0], HOSTS[1]), (HOSTS[1], HOSTS[0]))
        if above_bytes
    )
    shell(
        world.switch,
        "nft 'add table bridge hole; delete table bridge hole; add table bridge hole; "
        f"add chain bridge hole forward {{ type filter hook forward priority 0; }}{rules}'",
    )


def route_mtu(world: World, block: str) -> int:
    found = re.search(r"\bmtu (\d+)", world.hosts[0].shell(f"ip route show {block}"))
    return int(found[1]) if found else 0


def test_a_hole_for_large_packets_is_found_and_connections_go_on(world: World) -> None:
    listener = within_namespace(world.tasks["web2"], lambda: socket.create_server(("10.112.2.11", 9000)))
    with listener, connect(world.tasks["web1"], "10.112.2.11", 9000) as sender:
        receiver, _ = listener.accept()
        with receiver:
            swallow(world, 1350)
            for each in (sender, receiver):
                each.settimeout(DEADLINE_SECONDS)
            sender.sendall(b"x" * 100_000)  # fits the buffers
            received = 0
            while received < 100_000:
                received += len(receiver.recv(65536))
    # A few bytes less where a busy machine answered a probe too late.
    wait_until(lambda: 1280 <= route_mtu(world, HOSTS[1].block) <= 1300, "the route says what the path carries")
    # A busy machine may have answered late there, too: the next round says that all is well.
    wait_until(lambda: route_mtu(world, HOSTS[2].block) == 0, "the path to the third host is left alone")
    assert world.hosts[0].call("check") == []
    swallow(world, 0)
    wait_until(lambda: route_mtu(world, HOSTS[1].block) == 0, "the path is whole again")
