"""Policies in real kernels: every way from one task to another, both families, beside what the verdict says."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from net.addresses import ipv6_of
from net.model import Frontend, NetworkInfo, Port
from net.namespaces import within_namespace
from net.policy import Peer, Policy, PolicyPort, PolicyRule, Selector
from net.policy_plan import Connection, Party, Policies
from net.policy_plan import World as Judge
from tests.net import world as worlds
from tests.net.world import (
    CLIENT,
    CONFIG,
    DEADLINE_SECONDS,
    HOSTS,
    Server,
    World,
    ask_by_udp,
    connect,
    endpoint,
    running_world,
    underlay_ipv6,
    wait_until,
)

SHOP, BLOG, GUEST = (
    NetworkInfo("A", 1, "default", "shop", "default"),
    NetworkInfo("B", 2, "default", "blog", "default"),
    NetworkInfo("C", 3, "default", "site", "guest"),
)
NETWORKS = (SHOP, BLOG, GUEST)


def frontend(name: str, vip: str, network: NetworkInfo, published: int = 0, **labels: str) -> Frontend:
    ports = (Port("tcp", 80, published),) if published else ()
    return Frontend(
        f"id-{name}", name, network.app, network.tenant, vip, ports, (network.network_id,), labels=tuple(labels.items())
    )


FRONTENDS = (
    frontend("web", "10.120.0.1", SHOP, role="client"),
    frontend("cart", "10.120.0.2", SHOP),
    frontend("db", "10.120.0.3", SHOP, 8080),
    frontend("news", "10.120.0.4", BLOG, role="client"),
    frontend("site", "10.120.0.5", GUEST),
)
ENDPOINTS = (
    endpoint("web", 1, 1, "10.112.1.11", "A"),
    endpoint("cart", 1, 1, "10.112.1.12", "A"),
    endpoint("cart", 2, 2, "10.112.2.12", "A"),
    endpoint("db", 1, 2, "10.112.2.13", "A"),
    endpoint("news", 1, 2, "10.112.2.14", "B"),
    endpoint("site", 1, 1, "10.112.1.15", "C"),
)
DB = Selector("default", "shop", "db")
WEB = PolicyRule((Peer(Selector("default", "shop", "web")),), (PolicyPort("tcp", 80, 80),))


class Places:
    """A world with this file's services, and the verdict for whatever it is asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.desired = world.desired

    def apply(self, *policies: Policy, networks: tuple[NetworkInfo, ...] = NETWORKS) -> None:
        self.desired = replace(self.world.desired, policies=policies, networks=networks)
        self.world.apply(policies=policies, networks=networks)

    def party(self, name: str) -> Party:
        if name in self.world.tasks:
            found = next(each for each in ENDPOINTS if each.task_id == name)
            service = next(each for each in FRONTENDS if each.service_id == found.service_id)
            return Party("task", found.address, name, service, found.networks)
        return Party("outside", name, name)

    def verdict(
        self,
        source: str,
        target: str,
        *,
        ipv6: bool = False,
        published: bool = False,
        port: int = 80,
        protocol: str = "tcp",
    ) -> bool:
        networks = {each.network_id: each for each in self.desired.networks}
        judge = Judge(Policies(self.desired.policies), networks, CONFIG.trusted_cidrs)
        asked = Connection(self.party(source), self.party(target), protocol, port, ipv6, published)
        return judge.verdict(asked).allowed

    def namespace(self, source: str) -> Path:
        return self.world.tasks.get(source, self.world.client)

    def reaches(self, source: str, address: str, port: int = 80, seconds: float = DEADLINE_SECONDS) -> bool:
        try:
            with connect(self.namespace(source), address, port, seconds) as connection, connection.makefile() as lines:
                return bool(lines.readline())
        except OSError:
            return False

    def answers(self, source: str, address: str, *, expected: bool) -> bool:
        """The same by UDP, where most refusals are silence: what is `expected` is waited for longer."""
        try:
            return bool(ask_by_udp(self.namespace(source), address, 81, DEADLINE_SECONDS if expected else 1.5))
        except OSError:
            return False

    def count(self, policy_id: str) -> int:
        replies = [process.call("policy_counts") for process in self.world.hosts]
        return sum(each.packets for reply in replies for each in reply.counts if each.policy_id == policy_id)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "ENDPOINTS", ENDPOINTS)
        patch.setattr(worlds, "FRONTENDS", FRONTENDS)
        patch.setattr(worlds, "NETWORKS", NETWORKS)
        with running_world(tmp_path_factory.mktemp("policy")) as world:
            outside = Server(world.client, "outside")
            try:
                yield Places(world)
            finally:
                outside.close()


def ways(target: str) -> dict[str, tuple[str, bool]]:
    """The ways to a task from other tasks: (address, whether by IPv6)."""
    found = next(each for each in ENDPOINTS if each.task_id == target)
    service = next(each for each in FRONTENDS if each.service_id == found.service_id)
    prefix = CONFIG.ipv6_prefix
    return {
        "its VIP": (service.vip, False),
        "its VIP by IPv6": (ipv6_of(prefix, service.vip), True),
        "its address": (found.address, False),
        "its address by IPv6": (ipv6_of(prefix, found.address), True),
    }


POLICIES: dict[str, tuple[Policy, ...]] = {
    "none": (),
    "ingress by service and port": (Policy("p1", "db", DB, (WEB,)),),
    "ingress of nobody": (Policy("p1", "db", DB, ()),),
    "ingress by label, of any app": (
        Policy("p1", "db", DB, (PolicyRule((Peer(Selector("default", labels=(("role", "client"),))),)),)),
    ),
    "ingress of another tenant": (
        Policy("p1", "db", DB, (PolicyRule((Peer(Selector("guest", "site")),), (PolicyPort("tcp", 80, 90),)),)),
    ),
    "ingress on a port, whoever comes": (Policy("p1", "db", DB, (PolicyRule((), (PolicyPort("tcp", 80, 80),)),)),),
    "ingress on another port": (Policy("p1", "db", DB, (PolicyRule((), (PolicyPort("tcp", 81, 99),)),)),),
    "ingress from outside only": (Policy("p1", "db", DB, (PolicyRule((Peer(cidr="198.51.100.0/24"),)),)),),
    "ingress but from the client": (
        Policy("p1", "db", DB, (PolicyRule((Peer(cidr="0.0.0.0/0", excepted=(f"{CLIENT}/32",)),)),)),
    ),
    "egress to one service": (
        Policy("p1", "web", Selector("default", "shop", "web"), None, (PolicyRule((Peer(DB),)),)),
    ),
    "egress to nothing": (Policy("p1", "web", Selector("default", "shop", "web"), None, ()),),
    "egress to outside only": (
        Policy("p1", "web", Selector("default", "shop", "web"), None, (PolicyRule((Peer(cidr="198.51.100.48/29"),)),)),
    ),
    "both ends": (
        Policy("p1", "db", DB, (WEB,)),
        Policy(
            "p2", "web", Selector("default", "shop"), None, (PolicyRule((Peer(DB),), (PolicyPort("tcp", 80, 80),)),)
        ),
    ),
    "dry run": (Policy("p1", "db", DB, (), (), dry_run=True),),
}
SOURCES = ("web1", "cart1", "cart2", "news1", "site1")


@pytest.mark.parametrize("case", POLICIES)
def test_the_kernel_does_as_the_verdict_says(places: Places, case: str) -> None:
    places.apply(*POLICIES[case])
    tries: dict[str, tuple[str, str, int]] = {}
    said: dict[str, bool] = {}
    for source in SOURCES:
        for way, (address, ipv6) in ways("db1").items():
            key = f"{source} to db1 by {way}"
            tries[key], said[key] = (source, address, 80), places.verdict(source, "db1", ipv6=ipv6)
        on = next(each for each in ENDPOINTS if each.task_id == source).node_id
        own_host = next(each for each in HOSTS if each.node_id == on).address
        key = f"{source} to db1 by its host's published port"
        tries[key], said[key] = (source, own_host, 8080), places.verdict(source, "db1", published=True)
        key = f"{source} to outside"
        tries[key], said[key] = (source, CLIENT, 80), places.verdict(source, CLIENT)
    for entry in HOSTS[:2]:
        for client, address in ((CLIENT, entry.address), (underlay_ipv6(CLIENT), underlay_ipv6(entry.address))):
            key = f"{client} to db1 at {address}"
            tries[key] = ("outside", address, 8080)
            said[key] = places.verdict(client, "db1", published=True, ipv6=":" in client)
    with ThreadPoolExecutor(len(tries)) as threads:
        got = dict(zip(tries, threads.map(lambda each: places.reaches(*each), tries.values()), strict=True))
    assert got == said
    assert places.reaches("db1", "10.120.0.3"), "a task reaches itself by its VIP"


DATAGRAMS: dict[str, tuple[Policy, ...]] = {
    "none": (),
    "of TCP alone": (Policy("p1", "db", DB, (WEB,)),),
    "of one service": (
        Policy(
            "p1", "db", DB, (PolicyRule((Peer(Selector("default", "shop", "web")),), (PolicyPort("udp", 81, 81),)),)
        ),
    ),
    "on another port": (Policy("p1", "db", DB, (PolicyRule((), (PolicyPort("udp", 82, 90),)),)),),
    "whoever comes": (Policy("p1", "db", DB, (PolicyRule((), (PolicyPort("udp", 80, 81),)),)),),
    "from one service alone": (
        Policy("p1", "cart", Selector("default", "shop", "cart"), None, (PolicyRule((Peer(cidr=f"{CLIENT}/32"),)),)),
    ),
}


@pytest.mark.parametrize("case", DATAGRAMS)
def test_datagrams_are_let_through_as_the_verdict_says(places: Places, case: str) -> None:
    places.apply(*DATAGRAMS[case])
    tries: dict[str, tuple[str, str]] = {}
    said: dict[str, bool] = {}
    for source in SOURCES:
        for way, (address, ipv6) in ways("db1").items():
            key = f"{source} to db1 by {way}"
            tries[key] = (source, address)
            said[key] = places.verdict(source, "db1", ipv6=ipv6, port=81, protocol="udp")
        key = f"{source} to outside"
        tries[key], said[key] = (source, CLIENT), places.verdict(source, CLIENT, port=81, protocol="udp")
    with ThreadPoolExecutor(len(tries)) as threads:
        found = threads.map(lambda key: places.answers(*tries[key], expected=said[key]), tries)
        got = dict(zip(tries, found, strict=True))
    assert got == said


def test_a_closed_network_opens_by_policy_only(places: Places) -> None:
    closed = (replace(SHOP, closed=True), BLOG, GUEST)
    places.apply(networks=closed)
    assert not places.reaches("web1", "10.112.2.13")
    assert not places.verdict("web1", "db1")
    places.apply(Policy("p1", "db", DB, (WEB,)), networks=closed)
    for source, wanted in (("web1", True), ("cart1", False), ("cart2", False), ("news1", False)):
        assert places.reaches(source, "10.112.2.13") == places.verdict(source, "db1") == wanted


def test_a_dry_run_counts_and_tells_what_it_would_deny(places: Places) -> None:
    places.apply(Policy("p9", "db", DB, (WEB,), dry_run=True))
    before = places.count("p9")
    assert places.reaches("web1", "10.112.2.13")
    assert places.count("p9") == before
    assert places.reaches("cart1", "10.112.2.13")
    assert places.reaches("cart2", ipv6_of(CONFIG.ipv6_prefix, "10.112.2.13"))
    assert not places.reaches("news1", "10.112.2.13"), "what is denied anyway is not counted"
    assert places.count("p9") == before + 2

    def denials() -> list[Any]:
        told = [each for process in places.world.hosts for each in process.call("policy_counts").denials]
        return [each for each in told if each.policy_id == "p9"]

    wait_until(lambda: len(denials()) >= 2, "the denials are told")
    first = denials()[0]
    assert (first.source, first.target, first.protocol, first.port) == ("10.112.1.12", "10.112.2.13", "tcp", 80)
    places.apply(Policy("p9", "db", DB, (WEB,)))
    assert not places.reaches("cart1", "10.112.2.13")
    assert places.count("p9") == before + 3, "it goes on counting as it begins to deny"


@pytest.mark.parametrize("address", ["10.112.2.13", "10.120.0.3", ipv6_of(CONFIG.ipv6_prefix, "10.112.2.13")])
def test_a_connection_that_a_new_policy_forbids_is_cut(places: Places, address: str) -> None:
    places.apply()
    talks: Callable[[socket.socket], bytes] = lambda each: (each.send(b"x"), each.recv(100))[1]  # noqa: E731
    with (
        connect(places.world.tasks["cart1"], address) as forbidden,
        connect(places.world.tasks["web1"], address) as kept,
    ):
        for each in (forbidden, kept):
            each.settimeout(DEADLINE_SECONDS)
            assert b"db.1" in each.recv(100)
            assert talks(each) == b"x"
        places.apply(Policy("p1", "db", DB, (WEB,)))
        with pytest.raises(ConnectionResetError):
            talks(forbidden)
        assert talks(kept) == b"x"


def test_a_task_that_comes_or_moves_is_judged_at_once(places: Places) -> None:
    places.apply(Policy("p1", "db", DB, (WEB,)))
    moved = tuple(replace(each, service_id="id-web") if each.task_id == "cart1" else each for each in ENDPOINTS)
    assert not places.reaches("cart1", "10.112.2.13")
    places.world.apply(policies=places.desired.policies, endpoints=moved)
    assert places.reaches("cart1", "10.112.2.13")
    places.apply(*places.desired.policies)
    assert not places.reaches("cart1", "10.112.2.13")


def test_policies_that_were_flushed_come_back(places: Places) -> None:
    places.apply(Policy("p1", "db", DB, (WEB,)))
    host = places.world.hosts[1]
    host.shell("nft flush table inet fairway_fw; nft delete table inet fairway_fw")

    def repaired() -> bool:
        """Connections that begin meanwhile may hang, and are not waited for."""
        denied, allowed = (places.reaches(source, "10.112.2.13", seconds=1.5) for source in ("cart1", "web1"))
        return allowed and not denied

    wait_until(repaired, "repaired")
    assert host.call("check") == []
    assert within_namespace(host.namespace, lambda: True)
