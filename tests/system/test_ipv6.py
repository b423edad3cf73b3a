"""The whole by IPv6: tasks, services and published ports; and hosts that reach each other by it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable

import pytest

from lab.cluster import Lab
from lab.layout import both_addresses
from net.addresses import ipv6_of
from tests.system.cluster import Cluster, run_in_task
from tests.system.conftest import unique_name
from tests.system.test_reaching import GET, WHO

PORT = 8092
SECONDS_MAX = 25.0  # of a machine with much to do; a look that nothing wakes comes after 30


def who(cluster: Cluster, host: str, family: int) -> str:
    """Whom a service that is published at PORT sees when the client asks a host; empty where nobody answers. Family 0:
    IPv4, 1: IPv6."""
    address = both_addresses(cluster.lab.address(host))[family]
    url = f"http://{f'[{address}]' if ':' in address else address}:{PORT}/cgi-bin/who"
    seen = cluster.lab.run_in("client", [sys.executable, "-c", GET, url], check=False).stdout.strip()
    return seen.strip("[]").removeprefix("::ffff:")


def sees_the_client(cluster: Cluster) -> None:
    client = both_addresses(cluster.lab.address("client"))
    wanted = [client[family] for _ in cluster.lab.hosts() for family in (0, 1)]
    found: list[str] = []

    def answer() -> bool:
        found[:] = [who(cluster, host, family) for host in cluster.lab.hosts() for family in (0, 1)]
        return all(found)

    cluster.wait(answer, "all hosts answer")
    assert found == wanted


def prefix_of(cluster: Cluster) -> str:
    return str(cluster.json("status")["cluster"]["network"]["ipv6_prefix"])


def test_a_service_is_reached_by_ipv6_and_sees_who_asks(cluster: Cluster, deployed: Callable[[str], str]) -> None:
    app = deployed(WHO % PORT)
    sees_the_client(cluster)
    prefix = prefix_of(cluster)
    [task] = cluster.tasks(f"{app}/who")
    vip = ipv6_of(prefix, cluster.vip(f"{app}/who"))
    url = f"http://[{vip}]:8000/cgi-bin/who"

    def seen() -> list[str]:
        ask = [sys.executable, "-c", GET, url]
        return [cluster.lab.run_in(host, ask, check=False).stdout for host in cluster.lab.hosts()]

    cluster.wait(lambda: all(":" in each for each in seen()), "all hosts reach its VIP")
    listed = run_in_task(cluster, f"{app}/who", "cat", "/proc/net/if_inet6")
    assert ipaddress.IPv6Address(ipv6_of(prefix, task["address"])).packed.hex() in listed


def test_hosts_reach_each_other_by_ipv6(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Lab.make(unique_name(), 2, ipv6_underlay=True) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("ipv6"))
        cluster.load_image("static-web")
        lab.client()
        addresses = {view["node"]["address"] for view in cluster.json("node", "ls")}
        assert addresses == {"fd10:99::11", "fd10:99::12"}
        cluster.deploy(f"name: six\n{WHO % PORT}")
        sees_the_client(cluster)
        # A host of the other family says so before it has anything of the cluster.
        newcomer = lab.add_host()
        cluster.wait(lambda: cluster.json("status", host=newcomer)["host"]["phase"] == "new", "the new host is there")
        token = cluster.fairway("token", "create", "-q").stdout.strip()
        said = cluster.refused(
            "join",
            "[fd10:99::11]",
            "--token",
            token,
            "--address",
            both_addresses(lab.address(newcomer))[0],
            host=newcomer,
        )
        assert "reach each other by IPv6" in said
        changes_its_address(cluster, "host-2")


def changes_its_address(cluster: Cluster, host: str) -> None:
    """While its daemon runs."""
    old, new = cluster.lab.address(host), "fd10:99::77"
    change = f"ip address add {new}/64 dev eth0 nodad; ip address del {old}/64 dev eth0"
    cluster.lab.run_in(host, ["sh", "-c", change])

    def known() -> bool:
        return new in {view["node"]["address"] for view in cluster.json("node", "ls")}

    cluster.wait(known, "the new address is known", SECONDS_MAX)
