"""Three real hosts in namespaces, by IPv6: as by IPv4, without an address that anyone leased."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from net.namespaces import within_namespace
from tests.net.test_hosts_together import changed
from tests.net.world import (
    CLIENT,
    CONFIG,
    DEADLINE_SECONDS,
    NETWORKS,
    RESENT_WITHIN_A_SECOND,
    Server,
    World,
    ask,
    ask_by_udp,
    connect,
    ipv6,
    refused_at_once,
    resent,
    shell,
    underlay_ipv6,
    wait_until,
)

WEB, ONE, NONE, BLOG = (ipv6(f"10.120.0.{number}") for number in (1, 2, 3, 4))
ALL_WEB = {"web.1", "web.2", "web.3"}
OUTSIDE = underlay_ipv6(CLIENT)


def underlay(number: int) -> str:
    return underlay_ipv6(f"198.51.100.{number}")


def test_tasks_reach_each_other_across_hosts_by_address(world: World) -> None:
    assert ask(world.tasks["web1"], ipv6("10.112.2.11")) == ("web.2", ipv6("10.112.1.11"))
    assert ask(world.tasks["one1"], ipv6("10.112.3.11")) == ("web.3", ipv6("10.112.3.12"))


def test_a_task_has_its_address_at_once_and_nothing_waits_for_routers(world: World) -> None:
    shown = shell(world.tasks["web1"], "ip -6 addr show dev eth0")
    assert f"{ipv6('10.112.1.11')}/128 scope global nodad" in shown
    assert "fe80" not in shown
    assert "tentative" not in shown
    assert shell(world.tasks["web1"], "cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
    assert "default via fe80::1 dev eth0" in shell(world.tasks["web1"], "ip -6 route")


def test_a_task_that_forgot_its_neighbours_finds_them_again(world: World) -> None:
    shell(world.tasks["web1"], "ip -6 neigh flush dev eth0 nud permanent")
    world.hosts[0].shell(
        "for each in $(ip -o link | grep -o 'fwt[0-9a-f]*'); do ip -6 neigh flush dev $each nud all; done"
    )
    assert ask(world.tasks["web1"], ipv6("10.112.2.11"))[0] == "web.2"
    assert ask(world.tasks["web2"], ipv6("10.112.1.11"))[0] == "web.1"


def test_a_vip_balances_over_all_hosts_and_shows_the_source(world: World) -> None:
    assert {ask(world.tasks["one1"], WEB) for _ in range(60)} == {(name, ipv6("10.112.3.12")) for name in ALL_WEB}
    assert {ask_by_udp(world.tasks["one1"], WEB, 81)[0] for _ in range(40)} == ALL_WEB


def test_a_host_itself_uses_vips(world: World) -> None:
    assert {ask(process.namespace, WEB)[0] for process in world.hosts for _ in range(25)} == ALL_WEB


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_published_port_shows_the_outside_client_on_every_host(world: World, number: int) -> None:
    answers = {ask(world.client, underlay(number), 8080) for _ in range(40)}
    assert answers == {(name, OUTSIDE) for name in ALL_WEB}
    answers = {ask_by_udp(world.client, underlay(number), 8081) for _ in range(40)}
    assert answers == {(name, OUTSIDE) for name in ALL_WEB}


def test_a_host_uses_the_published_port_of_another_whose_backend_is_its_own(world: World) -> None:
    assert ask(world.hosts[2].namespace, underlay(1), 8082)[0] == "one.1"


@pytest.mark.parametrize("number", [1, 3])
def test_a_published_port_answers_the_host_itself(world: World, number: int) -> None:
    assert ask(world.hosts[number - 1].namespace, underlay(number), 8082)[0] == "one.1"


def test_the_loopback_publishes_over_ipv4_and_refuses_at_once_over_ipv6(world: World) -> None:
    refused_at_once(world.hosts[0].namespace, "::1", 8082)


def test_a_task_uses_a_published_port_even_of_an_app_it_shares_nothing_with(world: World) -> None:
    assert ask(world.tasks["blog1"], underlay(2), 8082)[0] == "one.1"
    assert ask(world.tasks["one1"], underlay(1), 8082)[0] == "one.1"


def test_a_task_reaches_itself_through_its_vip(world: World) -> None:
    assert ask(world.tasks["one1"], ONE)[0] == "one.1"
    assert ask(world.tasks["one1"], underlay(3), 8082)[0] == "one.1"


@pytest.mark.parametrize(
    ("task", "address"),
    [("web1", ipv6("10.112.2.12")), ("web2", ipv6("10.112.2.12")), ("web2", BLOG), ("blog1", WEB)],
)
def test_without_a_common_network_there_is_a_refusal_at_once(world: World, task: str, address: str) -> None:
    refused_at_once(world.tasks[task], address)


def test_a_network_without_ipv6_is_closed_by_ipv6_and_open_by_ipv4(world: World) -> None:
    world.apply(networks=tuple(replace(each, ipv6_disabled=each.network_id == "A") for each in NETWORKS))
    for address in (ipv6("10.112.2.11"), ipv6("10.112.1.11"), WEB):
        refused_at_once(world.tasks["one1"], address)
    assert ask(world.tasks["one1"], "10.120.0.1")[0] in ALL_WEB
    # What is published is open to all, by either.
    assert ask(world.client, underlay(1), 8082) == ("one.1", OUTSIDE)


def test_outside_sources_reach_tasks_only_where_they_are_trusted(world: World) -> None:
    shell(world.client, f"ip -6 route replace {CONFIG.ipv6_prefix} via {underlay(1)}")
    for address in (ipv6("10.112.2.11"), ONE):
        with pytest.raises(OSError):
            connect(world.client, address)
    world.apply(config=replace(CONFIG, trusted_cidrs=("192.0.2.0/24", f"{OUTSIDE}/128")))
    assert ask(world.client, ipv6("10.112.2.11")) == ("web.2", OUTSIDE)
    assert ask(world.client, ONE) == ("one.1", OUTSIDE)


def test_an_outside_source_that_ends_like_a_task_is_none(world: World) -> None:
    """Sets hold 32 bits of an address: the others must be ours too."""
    alike = "2001:db8:51::a70:10b"  # ends as that of web.1
    shell(
        world.client,
        f"ip addr add {alike}/64 dev eth0 nodad; ip -6 route replace {CONFIG.ipv6_prefix} via {underlay(1)}",
    )
    with within_namespace(world.client, lambda: socket.socket(socket.AF_INET6)) as asking:
        asking.settimeout(1)
        asking.bind((alike, 0))
        with pytest.raises(OSError):
            asking.connect((ipv6("10.112.1.11"), 80))
    shell(world.client, f"ip addr del {alike}/64 dev eth0")


@pytest.mark.parametrize("place", ["task", "host", "client"])
def test_no_ready_backend_means_refused_at_once(world: World, place: str) -> None:
    namespace = {"task": world.tasks["web1"], "host": world.hosts[0].namespace, "client": world.client}[place]
    address, port = (underlay(1), 8083) if place == "client" else (NONE, 80)
    refused_at_once(namespace, address, port)


def test_a_withdrawn_task_keeps_its_connections_until_it_is_gone(world: World) -> None:
    with connect(world.client, underlay(1), 8082) as kept, kept.makefile() as lines:
        assert lines.readline().startswith("one.1")
        world.apply(endpoints=changed(one1=False))
        with pytest.raises(ConnectionRefusedError):
            connect(world.client, underlay(1), 8082)
        kept.sendall(b"still here\n")
        assert lines.readline() == "still here\n"
        world.apply(endpoints=changed(one1=None))
        before = resent(kept)
        with pytest.raises(ConnectionResetError):
            kept.sendall(b"gone?\n")
            lines.readline()
        assert resent(kept) - before <= RESENT_WITHIN_A_SECOND


def test_udp_of_a_withdrawn_task_moves_at_once_even_on_the_same_socket(world: World) -> None:
    with within_namespace(world.tasks["one1"], lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as datagrams:
        datagrams.settimeout(DEADLINE_SECONDS)
        datagrams.connect((WEB, 81))
        datagrams.send(b"who?")
        first = datagrams.recv(100).decode().split()[0]
        world.apply(endpoints=changed(**{first.replace(".", ""): False}))
        datagrams.send(b"who?")
        assert datagrams.recv(100).decode().split()[0] != first


def test_tasks_reach_outside_unless_their_networks_are_internal(world: World) -> None:
    server = Server(world.client, "outside", 9090)
    try:
        assert ask(world.tasks["web2"], OUTSIDE, 9090) == ("outside", underlay(2))
        with pytest.raises(ConnectionRefusedError):
            connect(world.tasks["blog1"], OUTSIDE, 9090)
    finally:
        server.close()


def test_a_task_cannot_send_from_another_address(world: World) -> None:
    namespace = world.tasks["blog1"]
    forged = ipv6("10.112.1.99")
    shell(namespace, f"ip addr add {forged}/128 dev lo nodad")
    with within_namespace(namespace, lambda: socket.socket(socket.AF_INET6)) as asking:
        asking.settimeout(0.3)
        asking.bind((forged, 0))
        with pytest.raises(OSError):
            asking.connect((underlay(2), 8082))


@pytest.mark.parametrize(
    "damage",
    [
        "ip -6 route flush proto 77",
        "ip -6 neigh flush dev fwx0 nud permanent",
        "ip -6 addr flush dev fwx0",
        "ip -6 rule del pref 9001",
        "nft flush chain inet fairway_fw prerouting_ipv6",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "sysctl -qw net.ipv6.conf.fwx0.disable_ipv6=1",
        "ip -6 route del $(ip -6 route show proto 77 | grep -o '^[0-9a-f:]*  *dev fwt[0-9a-f]*' | head -1)",
    ],
)
def test_damage_is_repaired(world: World, damage: str) -> None:
    host = world.hosts[0]
    before = host.call("drift_count")
    host.shell(damage)
    wait_until(lambda: host.call("check") is not None and host.call("drift_count") > before, "repair")
    assert {ask(world.tasks["web1"], WEB)[0] for _ in range(40)} == ALL_WEB
    assert {ask(world.client, underlay(1), 8080)[1] for _ in range(20)} == {OUTSIDE}
    wait_until(lambda: host.call("check") == [], "nothing is left to repair")
