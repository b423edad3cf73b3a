"""Three real hosts in namespaces: tasks reach tasks, VIPs and published ports, and nothing else."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

import pytest

from net.namespaces import within_namespace
from tests.net.world import (
    CLIENT,
    CONFIG,
    DEADLINE_SECONDS,
    ENDPOINTS,
    RESENT_WITHIN_A_SECOND,
    Server,
    World,
    ask,
    ask_by_udp,
    connect,
    refused_at_once,
    resent,
    shell,
    wait_until,
)


def changed(**of_task: bool | None) -> tuple[object, ...]:
    """ENDPOINTS with readiness changed, or (None) without the task."""
    return tuple(
        replace(each, ready=bool(of_task.get(each.task_id, each.ready)))
        for each in ENDPOINTS
        if of_task.get(each.task_id, True) is not None
    )


def test_tasks_reach_each_other_across_hosts_by_address(world: World) -> None:
    assert ask(world.tasks["web1"], "10.112.2.11") == ("web.2", "10.112.1.11")
    assert ask(world.tasks["web3"], "10.112.1.11") == ("web.1", "10.112.3.11")


def test_a_vip_balances_over_all_hosts_and_shows_the_source(world: World) -> None:
    answers = {ask(world.tasks["one1"], "10.120.0.1") for _ in range(60)}
    assert answers == {("web.1", "10.112.3.12"), ("web.2", "10.112.3.12"), ("web.3", "10.112.3.12")}


def test_a_host_itself_uses_vips(world: World) -> None:
    answers = {ask(process.namespace, "10.120.0.1")[0] for process in world.hosts for _ in range(25)}
    assert answers == {"web.1", "web.2", "web.3"}


def test_udp_goes_through_a_vip(world: World) -> None:
    answers = {ask_by_udp(world.tasks["one1"], "10.120.0.1", 81) for _ in range(40)}
    assert answers == {("web.1", "10.112.3.12"), ("web.2", "10.112.3.12"), ("web.3", "10.112.3.12")}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_published_port_shows_the_outside_client_on_every_host(world: World, number: int) -> None:
    answers = {ask(world.client, f"198.51.100.{number}", 8080) for _ in range(40)}
    assert answers == {("web.1", CLIENT), ("web.2", CLIENT), ("web.3", CLIENT)}
    answers = {ask_by_udp(world.client, f"198.51.100.{number}", 8081) for _ in range(40)}
    assert answers == {("web.1", CLIENT), ("web.2", CLIENT), ("web.3", CLIENT)}


@pytest.mark.parametrize("number", [1, 3])
def test_a_published_port_answers_on_the_loopback(world: World, number: int) -> None:
    assert ask(world.hosts[number - 1].namespace, "127.0.0.1", 8082)[0] == "one.1"
    assert ask(world.hosts[number - 1].namespace, f"198.51.100.{number}", 8082)[0] == "one.1"


def test_a_host_uses_the_published_port_of_another_whose_backend_is_its_own(world: World) -> None:
    assert ask(world.hosts[2].namespace, "198.51.100.1", 8082)[0] == "one.1"


def test_a_task_uses_a_published_port_even_of_an_app_it_shares_nothing_with(world: World) -> None:
    assert ask(world.tasks["blog1"], "198.51.100.2", 8082)[0] == "one.1"
    assert ask(world.tasks["one1"], "198.51.100.1", 8082)[0] == "one.1"


def test_a_task_reaches_itself_through_its_vip(world: World) -> None:
    assert ask(world.tasks["one1"], "10.120.0.2")[0] == "one.1"
    assert ask(world.tasks["one1"], "198.51.100.3", 8082)[0] == "one.1"


@pytest.mark.parametrize(
    ("task", "address"),
    [
        ("web1", "10.112.2.12"),
        ("web2", "10.112.2.12"),
        ("web2", "10.120.0.4"),
        ("blog1", "10.112.2.11"),
        ("blog1", "10.120.0.1"),
    ],
)
def test_without_a_common_network_there_is_a_refusal_at_once(world: World, task: str, address: str) -> None:
    refused_at_once(world.tasks[task], address)


def test_none_of_many_refusals_is_late(world: World) -> None:
    """Refusals by ICMP are limited per client: the seventh within a second would be a timeout."""
    for _ in range(50):
        refused_at_once(world.tasks["web1"], "10.112.2.12")


def test_outside_sources_reach_tasks_only_where_they_are_trusted(world: World) -> None:
    route = "ip route replace 10.112.0.0/12 via 198.51.100.1"
    shell(world.client, route)
    with pytest.raises(OSError):
        connect(world.client, "10.112.2.11")
    with pytest.raises(OSError):
        connect(world.client, "10.120.0.2")
    world.apply(config=replace(CONFIG, trusted_cidrs=(f"{CLIENT}/32",)))
    assert ask(world.client, "10.112.2.11") == ("web.2", CLIENT)
    assert ask(world.client, "10.120.0.2") == ("one.1", CLIENT)


@pytest.mark.parametrize("place", ["task", "host", "client"])
def test_no_ready_backend_means_refused_at_once(world: World, place: str) -> None:
    namespace = {"task": world.tasks["web1"], "host": world.hosts[0].namespace, "client": world.client}[place]
    address, port = ("198.51.100.1", 8083) if place == "client" else ("10.120.0.3", 80)
    refused_at_once(namespace, address, port)


def test_a_withdrawn_task_keeps_its_connections_and_gets_no_new_ones(world: World) -> None:
    with connect(world.client, "198.51.100.1", 8082) as kept, kept.makefile() as lines:
        assert lines.readline().startswith("one.1")
        world.apply(endpoints=changed(one1=False))
        with pytest.raises(ConnectionRefusedError):
            connect(world.client, "198.51.100.1", 8082)
        kept.sendall(b"still here\n")
        assert lines.readline() == "still here\n"


@pytest.mark.parametrize(
    ("outside", "address", "port"),
    [
        (True, "198.51.100.1", 8082),
        (False, "10.120.0.2", 80),
        # Others are ready: the rest of the connection reaches one that knows nothing of it.
        (True, "198.51.100.1", 8080),
        (False, "10.120.0.1", 80),
    ],
)
def test_connections_of_a_task_that_is_gone_are_reset_when_used(
    world: World, outside: bool, address: str, port: int
) -> None:
    # Whoever is gone does not ask: a task that reaches itself is not meant here.
    asking = world.client if outside else world.tasks["web1" if address == "10.120.0.2" else "one1"]
    with connect(asking, address, port) as lost:
        lines = lost.makefile()
        task = lines.readline().split()[0].replace(".", "")
        world.apply(endpoints=changed(**{task: False}))
        lost.sendall(b"still here\n")
        assert lines.readline() == "still here\n"
        # The task itself still answers here: only what the balancers know of it is taken away.
        world.apply(endpoints=changed(**{task: None}))
        before = resent(lost)
        with lines, pytest.raises(ConnectionResetError):
            lost.sendall(b"gone?\n")
            lines.readline()
        assert resent(lost) - before <= RESENT_WITHIN_A_SECOND


def test_udp_of_a_withdrawn_task_moves_at_once_even_on_the_same_socket(world: World) -> None:
    namespace = world.tasks["one1"]
    with within_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
        datagrams.settimeout(DEADLINE_SECONDS)
        datagrams.connect(("10.120.0.1", 81))
        datagrams.send(b"who?")
        first = datagrams.recv(100).decode().split()[0]
        world.apply(endpoints=changed(**{first.replace(".", ""): False}))
        datagrams.send(b"who?")
        assert datagrams.recv(100).decode().split()[0] != first


def test_tasks_reach_outside_unless_their_networks_are_internal(world: World) -> None:
    server = Server(world.client, "outside", 9090)
    try:
        assert ask(world.tasks["web2"], CLIENT, 9090) == ("outside", "198.51.100.2")
        with pytest.raises(OSError) as refused:
            connect(world.tasks["blog1"], CLIENT, 9090)
        assert refused.value.errno == errno.ECONNREFUSED
    finally:
        server.close()


def test_a_task_cannot_send_from_another_address(world: World) -> None:
    namespace = world.tasks["blog1"]
    shell(namespace, "ip addr add 10.112.1.99/32 dev lo")
    with within_namespace(namespace, lambda: socket.socket()) as forged:
        forged.settimeout(0.3)
        forged.bind(("10.112.1.99", 0))
        with pytest.raises(OSError):
            forged.connect(("198.51.100.2", 8082))


def test_a_task_does_not_reach_the_loopback_of_its_host(world: World) -> None:
    host = world.hosts[0]
    server = Server(host.namespace, "private", 7070)
    try:
        shell(world.tasks["web1"], "ip route add 127.0.0.9/32 via 169.254.77.1 dev eth0 onlink || true")
        assert ask(host.namespace, "127.0.0.1", 7070)[0] == "private"
        shell(world.tasks["web1"], "ip route replace table local 127.0.0.9/32 via 169.254.77.1 dev eth0 onlink || true")
        with pytest.raises(OSError):
            connect(world.tasks["web1"], "127.0.0.9", 7070, timeout=0.3)
    finally:
        server.close()


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft flush chain inet fairway_fw prerouting",
        "nft delete element inet fairway_fw vips '{ 10.120.0.1 }'",
        "ip link del fwx0",
        "ip route flush proto 77",
        "ip neigh flush dev fwx0 nud permanent",
        "ip link set fwx0 down",
        "ip rule del pref 9001 fwmark 0x2000/0xffff000 || ip rule del pref 9001",
        "sysctl -qw net.ipv4.ip_forward=0",
    ],
)
def test_damage_is_repaired(world: World, damage: str) -> None:
    host = world.hosts[0]
    before = host.call("drift_count")
    host.shell(damage)
    # Once the periodic check is waited for; the others are asked for.
    by_itself = damage == "nft flush ruleset"
    wait_until(lambda: (by_itself or host.call("check") is not None) and host.call("drift_count") > before, "repair")
    assert {ask(world.tasks["web1"], "10.120.0.1")[0] for _ in range(40)} == {"web.1", "web.2", "web.3"}
    assert {ask(world.client, "198.51.100.1", 8080)[1] for _ in range(20)} == {CLIENT}
    wait_until(lambda: host.call("check") == [], "nothing is left to repair")


def test_a_lost_interface_of_a_task_is_made_anew(world: World) -> None:
    host = world.hosts[0]
    before = host.call("drift_count")
    host.shell("ip link del $(ip -o link | grep -o 'fwt[0-9a-f]*' | head -1)")
    wait_until(lambda: host.call("check") is not None and host.call("drift_count") > before, "repair")
    assert ask(world.tasks["web1"], "10.112.2.11") == ("web.2", "10.112.1.11")
    assert ask(world.tasks["one1"], "10.112.1.11")[0] == "web.1"


def test_the_tables_of_others_are_left_alone(world: World) -> None:
    host = world.hosts[0]
    host.shell("nft add table ip others && nft add chain ip others mine")
    before = host.call("drift_count")
    host.shell("nft delete table inet fairway_fw")
    wait_until(lambda: host.call("check") is not None and host.call("drift_count") > before, "repair")
    assert "chain mine" in host.shell("nft list table ip others")
