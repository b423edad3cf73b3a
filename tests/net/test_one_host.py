"""One host: what a restart adopts, what is refused, what is left behind (nothing)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from net import features
from net.errors import NetworkError
from net.model import DesiredNetwork, LocalTask, NetworkConfig
from net.network import Network
from tests.net.world import CONFIG, ENDPOINTS, FRONTENDS, HOSTS, NETWORKS, HostProcess, shell, wait_until

DESIRED = DesiredNetwork(
    CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, (LocalTask("web1", "10.112.1.11", ("A",)),)
)

# An underlay that leads nowhere.
UNDERLAY = (
    "ip link set lo up; ip link add under type veth peer name other;"
    "ip addr add 198.51.100.1/24 dev under; ip link set under up; ip link set other up"
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(tmp_path, [])
    try:
        process.shell(UNDERLAY)
        process.start()
        yield process
        for task_id in process.call("list_task_networks"):
            process.call("delete_task_network", task_id)
    finally:
        process.stop()


def test_this_machine_has_what_is_needed() -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    assert features.check() == []
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


def test_a_second_daemon_adopts_everything_and_changes_nothing(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    host.call("create_task_network", "web1", "10.112.1.11")
    look = (  # the kernel adds its anycast routes when it finds the time
        "nft -a list ruleset; ip -d link; ip rule; ip -6 rule; ip route show table all;"
        "ip -6 route show table all | grep -v ^anycast; ip neigh; ip addr; bridge fdb"
    )
    before = host.shell(look)
    # A restarted daemon has no memory: everything is compared with the kernel.
    host.restart()
    host.call("apply", DESIRED)
    assert host.call("create_task_network", "web1", "10.112.1.11").name == "web1"
    assert host.shell(look) == before
    assert host.call("check") == []
    assert host.call("list_task_networks") == {"web1": "10.112.1.11"}


def test_a_stale_ruleset_is_corrected_when_a_daemon_starts(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    host.restart()
    host.call("apply", replace(DESIRED, endpoints=ENDPOINTS[:1], hosts=HOSTS[:2], frontends=FRONTENDS[:1]))
    rules = host.shell("nft list ruleset")
    assert "10.112.2.11" not in rules
    assert "10.120.0.2" not in rules
    assert "10.112.3.0/24" not in host.shell("ip route")


def test_a_table_of_another_build_is_made_anew(host: HostProcess) -> None:
    """The kernel changes neither the fields of a set nor where a chain hooks in. In one transaction: a table that is
    gone is repaired at once."""
    host.call("apply", DESIRED)
    before = host.shell("nft list ruleset")
    for left_behind in (
        "add set inet fairway_fw confined { type ipv4_addr . inet_service; }",
        "add chain inet fairway_fw forward { type filter hook forward priority 7; }",
    ):
        host.shell(f"nft 'delete table inet fairway_fw; add table inet fairway_fw; {left_behind}'")
        host.restart()
        host.call("apply", DESIRED)
        assert host.shell("nft list ruleset") == before
        assert host.call("check") == []


def test_leaving_takes_everything_away(host: HostProcess) -> None:
    look = (
        "nft list ruleset; ip -o link | cut -d: -f2; ip rule; ip -6 rule; ip -4 route show table all;"
        "ip -6 route show table all; cat /proc/sys/net/ipv6/conf/*/accept_ra"
    )
    before = host.shell(look)
    host.call("apply", DESIRED)
    host.call("create_task_network", "web1", "10.112.1.11")
    assert host.shell(look) != before
    host.call("remove")
    assert host.shell(look) == before
    assert host.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding").split() == ["0", "0"]


def test_stale_interfaces_go_and_others_stay(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    host.shell("ip link add fwt0123456789ab type veth peer name mine0")
    found = host.call("check")  # empty where it was noticed and repaired before that
    assert found in (["stale interface fwt0123456789ab"], [])
    host.shell("ip link add fwtmine type veth peer name mine1")
    assert host.call("check") == []
    links = host.shell("ip -o link")
    assert "fwt0123456789ab" not in links and "fwtmine" in links


def test_task_networks_come_and_go_and_can_be_asked_for_twice(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    first = host.call("create_task_network", "a", "10.112.1.50")
    assert host.call("create_task_network", "a", "10.112.1.50") == first
    host.call("create_task_network", "b", "10.112.1.51")
    assert host.call("list_task_networks") == {"a": "10.112.1.50", "b": "10.112.1.51"}
    assert "10.112.1.50/32" in shell(first, "ip addr show dev eth0")
    for _ in range(2):
        host.call("delete_task_network", "a")
    assert host.call("list_task_networks") == {"b": "10.112.1.51"}
    assert not first.exists()


def test_a_failed_task_network_leaves_nothing_and_says_why(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    links = host.shell("ip -o link | cut -d: -f2")
    with pytest.raises(AssertionError, match="cannot be a file name"):
        host.call("create_task_network", "../x", "10.112.1.50")
    assert host.shell("ip -o link | cut -d: -f2") == links
    assert host.call("list_task_networks") == {}


def test_a_vxlan_id_that_is_taken_is_explained(host: HostProcess) -> None:
    host.shell("ip link add theirs type vxlan id 4077 local 198.51.100.1 dstport 8472 nolearning")
    with pytest.raises(AssertionError, match="choose another vxlan_id"):
        host.call("apply", DESIRED)
    host.shell("ip link del theirs")
    host.call("apply", DESIRED)
    assert host.call("check") == []


def test_a_prefix_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="15 in a whole name"):
        Network(tmp_path, tmp_path, "fairway1")


@pytest.mark.parametrize(
    ("environment", "config", "why"),
    [
        ({"FAIRWAY_TEST_WITHOUT_IPV6": "1"}, CONFIG, "ipv6.disable=1"),
        ({}, replace(CONFIG, mtu_bytes=1200), "IPv6 needs 1280"),
    ],
)
def test_a_host_that_cannot_have_ipv6_has_ipv4_and_says_why(
    tmp_path: Path, environment: dict[str, str], config: NetworkConfig, why: str
) -> None:
    process = HostProcess(tmp_path, [], **environment)
    try:
        process.shell(UNDERLAY)
        process.start()
        process.call("apply", replace(DESIRED, config=config))
        [words] = process.call("lacking")
        assert why in words
        task = process.call("create_task_network", "web1", "10.112.1.11")
        assert "10.112.1.11" in shell(task, "ip addr")
        assert "fd00" not in shell(task, "ip addr") + process.shell("ip addr; ip -6 route")
        # This kernel does have IPv6, and gives the tunnel an address of its own, when it finds the time.
        wait_until(lambda: process.call("check") == [], "nothing left to repair")
    finally:
        process.call("delete_task_network", "web1")
        process.stop()


def test_an_underlay_that_disappears_and_returns_changes_nothing(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    look = "ip -d link show fwx0; ip route show proto 77; ip -6 route show proto 77; bridge fdb show dev fwx0"
    before = host.shell(look)
    host.shell("ip link del under")
    assert host.call("check") == []
    host.shell(UNDERLAY)
    assert host.call("check") == []
    assert host.shell(look) == before


def test_a_host_with_another_address_on_the_underlay_sends_from_it(host: HostProcess) -> None:
    host.call("apply", DESIRED)
    host.shell("ip addr add 198.51.100.77/24 dev under; ip addr del 198.51.100.1/24 dev under")
    here = replace(HOSTS[0], address="198.51.100.77")
    host.call("apply", replace(DESIRED, local=here, hosts=(here, replace(HOSTS[1], address="198.51.100.78"), HOSTS[2])))
    assert "local 198.51.100.77" in host.shell("ip -d link show fwx0")
    assert "dst 198.51.100.78" in host.shell("bridge fdb show dev fwx0")
    assert "198.51.100.2 " not in host.shell("bridge fdb show dev fwx0")
    assert host.call("check") == []
