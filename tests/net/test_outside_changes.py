"""Who touches what is ours is noticed at once; what others do with their own, and what we ask for, is not."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from net.outside_changes_plan import Ours, concerns, may_concern
from net.pyroute2_messages import LinkEvents, encode, fibmsg, ifaddrmsg, ifinfmsg, ndmsg, rtmsg, rtnl
from net.route_messages import PROTOCOL
from tests.net.test_one_host import DESIRED
from tests.net.world import TRIES_MAX, HostProcess, succeeds, wait_until

OURS = Ours("fw", 7, {4321})
UP = 1


def link(kind: int, name: str, flags: int = UP) -> tuple[int, bytes]:
    return kind, encode(ifinfmsg, [("IFLA_IFNAME", name)], index=7, flags=flags)


def address(device: int, scope: int = 253) -> tuple[int, bytes]:
    return rtnl.RTM_DELADDR, encode(ifaddrmsg, family=socket.AF_INET, index=device, scope=scope)


def neighbour(device: int) -> tuple[int, bytes]:
    return rtnl.RTM_DELNEIGH, encode(ndmsg, family=socket.AF_INET, ifindex=device)


def route(protocol: int) -> tuple[int, bytes]:
    return rtnl.RTM_DELROUTE, encode(rtmsg, family=socket.AF_INET, proto=protocol)


def rule(protocol: int) -> tuple[int, bytes]:
    return rtnl.RTM_DELRULE, encode(fibmsg, [("FRA_PROTOCOL", protocol)], family=socket.AF_INET)


def verdict(event: tuple[int, bytes], port: int) -> bool:
    kind, body = event
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, port) + body
    if not may_concern(kind, data, 0, OURS):
        return False
    [message] = LinkEvents().parse(data)
    return concerns(message, OURS)


@pytest.mark.parametrize(
    ("event", "port", "expected"),
    [
        (link(rtnl.RTM_DELLINK, "fwx0"), 99, True),
        (link(rtnl.RTM_DELLINK, "fwx0"), 4321, False),  # by ourselves
        (link(rtnl.RTM_NEWLINK, "fwx0", flags=0), 0, True),
        (link(rtnl.RTM_NEWLINK, "fwx0"), 0, False),  # carrier
        (link(rtnl.RTM_DELLINK, "fwt0123456789ab"), 99, True),
        (link(rtnl.RTM_NEWLINK, "fwt0123456789ab"), 0, False),
        (link(rtnl.RTM_DELLINK, "eth0"), 99, False),
        (address(7), 99, True),
        (address(8), 99, False),
        (address(8, scope=0), 99, True),  # perhaps what the tunnel stands on
        (address(8, scope=0), 4321, False),
        (neighbour(7), 99, True),
        (neighbour(7), 4321, False),
        (neighbour(8), 0, False),
        (route(PROTOCOL), 99, True),
        (route(3), 99, False),
        (rule(PROTOCOL), 99, True),
        (rule(3), 99, False),
    ],
)
def test_only_what_others_did_to_ours_counts(event: tuple[int, bytes], port: int, expected: bool) -> None:
    assert verdict(event, port) is expected


@pytest.mark.parametrize("length", range(40))
def test_a_message_cut_short_concerns_nobody_or_is_decoded(length: int) -> None:
    kind, body = link(rtnl.RTM_DELLINK, "fwx0")
    data = (struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 99) + body)[:length]
    assert may_concern(kind, data, 0, OURS) is (length >= 24)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    # What is repaired sooner was noticed, not come upon.
    folder = tmp_path_factory.mktemp("host")
    process = HostProcess(folder, [], FAIRWAY_TEST_CHECK_EVERY_SECONDS="60")
    try:
        process.shell(
            "ip link set lo up; ip link add under type veth peer name other;"
            "ip addr add 198.51.100.1/24 dev under; ip link set under up; ip link set other up"
        )
        process.start()
        process.call("apply", DESIRED)
        process.call("create_task_network", "web1", "10.112.1.11")
        yield process
        process.call("delete_task_network", "web1")
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        ("ip link del fwx0", "ip route show proto 77 | grep -c fwx0"),
        ("ip link set fwx0 down", "ip -o link show fwx0 up | grep fwx0"),
        ("ip route del 10.112.2.0/24 proto 77", "ip route show 10.112.2.0/24 | grep fwx0"),
        ("ip rule del pref 9000", "ip rule show pref 9000 | grep goto"),
        ("ip addr del 10.112.1.1/32 dev fwx0", "ip addr show fwx0 | grep 10.112.1.1/32"),
        ("ip neigh flush dev fwx0 nud permanent", "ip neigh show dev fwx0 | grep 10.112.2.1"),
        (
            "bridge fdb show dev fwx0 | { read mac rest; bridge fdb del $mac dev fwx0; }",
            "bridge fdb show dev fwx0 | grep -c dst",
        ),
        ("ip route flush proto 77", "ip route show 10.112.2.0/24 | grep fwx0"),
        ("ip rule flush; ip rule add pref 32766 lookup main", "ip rule show pref 9001 | grep lookup"),
        ("ip addr flush dev fwx0", "ip addr show fwx0 | grep 10.112.1.1/32"),
        ("nft flush ruleset", "nft list chain inet fairway_fw prerouting | grep vips"),
        ("nft delete chain inet fairway_fw local_output", "nft list chain inet fairway_fw local_output | grep refuse"),
        ("nft flush set inet fairway_fw tunnels", "nft list set inet fairway_fw tunnels | grep 10.112.2.1"),
        ("ip -6 route flush proto 77", "ip -6 route show fd00:f00d::a70:200/120 | grep fwx0"),
        ("ip -6 addr flush dev fwx0", "ip addr show fwx0 | grep fd00:f00d::a70:101/128"),
        ("ip addr add 2001:db8::5/64 dev fwx0", "ip addr show fwx0 | grep -c 2001:db8::5 | grep 0"),
        ("ip addr add 192.0.2.5/24 dev fwx0", "ip addr show fwx0 | grep -c 192.0.2.5 | grep 0"),
        ("ip -6 neigh flush dev fwx0 nud permanent", "ip -6 neigh show dev fwx0 | grep fd00:f00d::a70:201"),
        ("ip -6 rule del pref 9000", "ip -6 rule show pref 9000 | grep goto"),
        ("ip -6 route del fd00:f00d::a70:10b", "ip -6 route show fd00:f00d::a70:10b | grep fwt"),
        ("sysctl -qw net.ipv6.conf.fwx0.disable_ipv6=1", "ip addr show fwx0 | grep fd00:f00d::a70:101/128"),
        ("ip link del $(ip -o link | grep -o 'fwt[0-9a-f]*' | head -1)", "ip route show 10.112.1.11 | grep fwt"),
    ],
)
def test_damage_is_repaired_within_two_seconds_and_counted(host: HostProcess, damage: str, whole: str) -> None:
    def drift_count() -> Any:
        return host.call("counters").drift_count

    def seconds_until_repaired() -> float:
        host.call("check")
        before = drift_count()
        started = time.monotonic()
        host.shell(damage)
        # Damage that is more than one step may be noticed, repaired and counted before the last of them.
        wait_until(lambda: drift_count() > before and succeeds(host.namespace, whole), "the repair")
        return time.monotonic() - started

    assert any(seconds_until_repaired() < 2 for _ in range(TRIES_MAX))
