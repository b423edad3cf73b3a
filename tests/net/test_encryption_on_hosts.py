"""Three hosts with real WireGuard (wireguard-go where the kernel has none): on, rotated, off, broken; under traffic."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from net.model import Encryption, Host
from net.namespaces import within_namespace
from net.route_messages import pack_mac
from tests.net.traffic import running_traffic
from tests.net.world import (
    CLIENT,
    CONFIG,
    ENDPOINTS,
    HOSTS,
    World,
    ask,
    ask_by_udp,
    running_world,
    shell,
    underlay_ipv6,
    wait_until,
)

MEND_SECONDS_MAX = 2.0
BETWEEN_STEPS_SECONDS = 0.15


class EncryptedWorld:
    """A world whose hosts take the steps that the leader makes them take, one host after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.encryption = Encryption()
        self.over_ipv6 = False
        self._keys: dict[str, dict[int, bytes]] = {}
        # Sees what goes over the wire, by both families.
        shell(
            world.switch,
            "nft 'add table bridge seen; add chain bridge seen forward { type filter hook forward priority 0; }; "
            f"add rule bridge seen forward udp dport {CONFIG.vxlan_port} counter'",
        )

    def step(self, sending: int, *receiving: int) -> None:
        """All hosts follow; then each is told the keys of the others, as the leader does."""
        self.encryption = Encryption(sending, receiving)
        config = replace(CONFIG, encryption=self.encryption)
        self.world.apply(config=config, hosts=self.hosts())
        self.world.apply(config=config, hosts=self.hosts())

    def hosts(self) -> tuple[Host, ...]:
        """With the keys that were reported last; a host that has just started has not reported yet."""
        for process in self.world.hosts:
            self._keys.setdefault(process.prefix, {}).update(process.call("encryption")[0])
        return tuple(
            replace(
                host,
                keys=tuple(sorted(self._keys[process.prefix].items())),
                address=underlay_ipv6(host.address) if self.over_ipv6 else host.address,
            )
            for host, process in zip(HOSTS, self.world.hosts, strict=True)
        )

    def clear_packets(self) -> int:
        """VXLAN packets that went over the wire so far without encryption."""
        words = shell(self.world.switch, "nft list chain bridge seen forward").split()
        return int(words[words.index("packets") + 1])

    def everyone_reaches_everyone(self) -> None:
        for task, to in (("web1", "10.112.2.11"), ("web2", "10.112.3.11"), ("web3", "10.112.1.11")):
            assert ask(self.world.tasks[task], to)[1] == address_of(task)
        answers = {ask(self.world.tasks["one1"], "10.120.0.1") for _ in range(40)}
        assert answers == {(f"web.{number}", "10.112.3.12") for number in (1, 2, 3)}
        assert ask(self.world.client, "198.51.100.1", 8082) == ("one.1", CLIENT)


def address_of(task_id: str) -> str:
    return next(each.address for each in ENDPOINTS if each.task_id == task_id)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedWorld]:
    with running_world(tmp_path_factory.mktemp("encrypted"), f"t{uuid.uuid4().hex[:4]}") as world:
        yield EncryptedWorld(world)
    # They outlive their daemon, which would have replaced them, and would outlive this test.
    for process_id in [each for number in range(len(world.hosts)) for each in processes(world, number)]:
        os.kill(process_id, signal.SIGTERM)


def test_on_rotated_and_off_without_a_packet_lost(encrypted: EncryptedWorld) -> None:
    world = encrypted.world
    on = ((0, 0, 1), (1, 0, 1), (1, 1))
    rotated = ((1, 1, 2), (2, 1, 2), (2, 2))
    off = ((2, 2, 0), (0, 2, 0), (0, 0))
    with running_traffic(world.tasks["web1"], world.tasks["web2"], "10.112.2.11") as traffic:
        wait_until(lambda: traffic.echoes > 20, "the traffic runs")
        for steps in (on, rotated, off):
            for sending, *receiving in steps:
                encrypted.step(sending, *receiving)
                if len(receiving) == 1 and sending:
                    seen = encrypted.clear_packets()
                    encrypted.everyone_reaches_everyone()
                    assert encrypted.clear_packets() == seen
                time.sleep(BETWEEN_STEPS_SECONDS)
        assert encrypted.clear_packets() > 0, "the counter counts"
    assert traffic.failure == ""
    assert traffic.lost == 0, f"{traffic.lost} of {traffic.sent} datagrams"
    assert traffic.sent > 300
    for process in world.hosts:
        assert process.call("encryption") == ({}, "")
        assert f"{process.prefix}w" not in process.shell("ip -br link")


@pytest.fixture
def on(encrypted: EncryptedWorld) -> EncryptedWorld:
    if encrypted.encryption != Encryption(3, (3,)):
        encrypted.step(0, 0, 3)
        encrypted.step(3, 0, 3)
        encrypted.step(3, 3)
    return encrypted


def test_vxlan_in_the_clear_is_dropped_while_hosts_encrypt(on: EncryptedWorld) -> None:
    """The same forged datagram arrives once the clear is taken too."""
    world = on.world
    server = within_namespace(world.tasks["web2"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = within_namespace(world.hosts[0].namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server, sender:
        server.bind(("10.112.2.11", 7777))
        server.settimeout(0.5)
        sender.sendto(forged(b"forged"), (HOSTS[1].address, CONFIG.vxlan_port))
        with pytest.raises(TimeoutError):
            server.recv(100)
        on.step(3, 3, 0)
        sender.sendto(forged(b"forged"), (HOSTS[1].address, CONFIG.vxlan_port))
        assert server.recv(100) == b"forged"
    on.step(3, 3)


def forged(data: bytes) -> bytes:
    """A VXLAN packet (RFC 7348) with a datagram from the task on host 1 to the one on host 2."""
    source, target = (ip_address(each).packed for each in ("10.112.1.11", "10.112.2.11"))
    udp = struct.pack(">HHHH", 5555, 7777, 8 + len(data), 0) + data
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source, target)
    total = sum(struct.unpack(">10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack(">H", checksum) + header[12:]
    frame = pack_mac(HOSTS[1].tunnel_mac) + pack_mac(HOSTS[0].tunnel_mac) + b"\x08\x00" + header + udp
    return struct.pack(">II", 0x08000000, CONFIG.vxlan_id << 8) + frame


def processes(world: World, number: int) -> list[int]:
    """wireguard-go's of one host."""
    prefix = f"{world.hosts[number].prefix}w"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"wireguard-go") and any(word.startswith(prefix.encode()) for word in words):
                found.append(int(path.parent.name))
    return found


def test_wireguard_survives_the_daemon_and_is_found_again(on: EncryptedWorld) -> None:
    world = on.world
    before = processes(world, 0)
    with running_traffic(world.tasks["web1"], world.tasks["web2"], "10.112.2.11") as traffic:
        wait_until(lambda: traffic.echoes > 20, "the traffic runs")
        world.hosts[0].restart()
        on.step(3, 3)
        time.sleep(BETWEEN_STEPS_SECONDS)
    assert processes(world, 0) == before
    assert (traffic.failure, traffic.lost) == ("", 0)


def test_a_wireguard_process_that_dies_is_replaced_at_once(on: EncryptedWorld) -> None:
    world = on.world
    on.everyone_reaches_everyone()
    before = processes(world, 0)
    if not before:
        pytest.skip("this kernel has WireGuard: there is no process")
    started = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: reaches(world), "the two hosts reach each other again, in both directions")
    took_seconds = time.monotonic() - started
    assert processes(world, 0) not in ([], before)
    assert took_seconds < MEND_SECONDS_MAX, took_seconds


def reaches(world: World) -> bool:
    try:
        ask_by_udp(world.tasks["web2"], "10.112.1.11", 81, 0.1)
        ask_by_udp(world.tasks["web1"], "10.112.2.11", 81, 0.1)
    except OSError:
        return False
    return True


def test_a_device_that_is_deleted_or_changed_by_hand_is_mended(on: EncryptedWorld) -> None:
    world, host = on.world, on.world.hosts[0]
    device = f"{host.prefix}w1"
    for command in (
        f"ip link del {device}",
        f"ip link set {device} down",
        f"ip addr flush dev {device}",
        "ip route del 198.18.0.0/17",
    ):
        started = time.monotonic()
        host.shell(command)
        wait_until(lambda: reaches(world), f"mended after `{command}`")
        assert time.monotonic() - started < MEND_SECONDS_MAX, command


def test_hosts_that_reach_each_other_by_ipv6_encrypt_too(on: EncryptedWorld) -> None:
    world = on.world
    on.step(3, 3, 0)
    on.step(0, 3, 0)
    on.step(0, 0)
    on.over_ipv6 = True
    try:
        on.step(0, 0)  # the VXLAN device is made anew: it has one family for good
        wait_until(lambda: reaches(world), "the hosts reach each other over IPv6")
        with running_traffic(world.tasks["web1"], world.tasks["web2"], "10.112.2.11") as traffic:
            wait_until(lambda: traffic.echoes > 20, "the traffic runs")
            for sending, *receiving in ((0, 0, 4), (4, 0, 4), (4, 4), (4, 4, 5), (5, 4, 5), (5, 5)):
                on.step(sending, *receiving)
                time.sleep(BETWEEN_STEPS_SECONDS)
            seen = on.clear_packets()
            on.everyone_reaches_everyone()
            assert on.clear_packets() == seen
            assert "fdfa:6972:7761:7900::1" in world.hosts[0].shell("ip -6 -br addr")
        assert (traffic.failure, traffic.lost) == ("", 0)
        on.step(5, 5, 0)
        on.step(0, 5, 0)
    finally:
        on.over_ipv6 = False
        on.step(0, 0)


def test_without_wireguard_nothing_is_sent_at_all(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRWAY_TEST_HOST_PATH", "/nowhere")
    with running_world(tmp_path_factory.mktemp("lacking"), f"t{uuid.uuid4().hex[:4]}") as world:
        lacking = EncryptedWorld(world)
        lacking.step(1, 1)
        keys, problem = world.hosts[0].call("encryption")
        if keys:
            pytest.skip("this kernel has WireGuard")
        assert "wireguard-go is not installed" in problem
        with pytest.raises(OSError):
            ask_by_udp(world.tasks["web1"], "10.112.2.11", 81, 0.3)
        assert lacking.clear_packets() == 0
