"""Which name means what to whom."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from net.addresses import ipv6_of
from net.desired_changes import DesiredIndex
from net.dns_message import TYPE_A, TYPE_SRV
from net.dns_names import NameIndex, Outcome, Resolution
from net.model import DesiredNetwork, Endpoint, Frontend, LocalTask, NetworkInfo, Port
from net.policy import Peer, Policy, PolicyPort, PolicyRule, Selector
from tests.net.world import CONFIG, ENDPOINTS, FRONTENDS, HOSTS, NETWORKS, endpoint

PORTS = (Port("tcp", 80, name="http"), Port("udp", 53))
VIP_LESS = Frontend("id-many", "many", "shop", "default", "", PORTS, ("A",))
BOTH = Frontend("id-both", "both", "shop", "default", "10.120.0.9", (), ("A", "C"), (("A", "left"), ("C", "right.x")))
EMPTY = Frontend("id-empty", "empty", "shop", "default", "", PORTS, ("A",))
MANY = tuple(endpoint("many", slot, 1, f"10.112.1.{100 + slot}", "A", slot != 3) for slot in range(1, 4))
OTHER = endpoint("other", 1, 1, "10.112.1.50", "C")
NETS = (*NETWORKS, NetworkInfo("C", 3, "back", "shop", "default", ipv6_disabled=True))
CONFIG_6 = replace(CONFIG, ipv6_prefix="fd00:f00d::/96")
DESIRED = DesiredNetwork(
    CONFIG_6, HOSTS[0], HOSTS, (*FRONTENDS, VIP_LESS, BOTH, EMPTY), (*ENDPOINTS, *MANY, OTHER), NETS
)
WEB, BLOG, HOST, STRANGER, BACK = "10.112.1.11", "10.112.2.12", "10.112.3.1", "10.112.1.77", "10.112.1.50"
THEIRS = Frontend("id-theirs", "web", "shop", "other", "10.120.0.77", PORTS, ("T",))
THEIR_TASK = endpoint("theirs", 1, 1, "10.112.1.60", "T")
TWO_TENANTS = replace(
    DESIRED,
    frontends=(*DESIRED.frontends, THEIRS),
    endpoints=(*DESIRED.endpoints, THEIR_TASK),
    networks=(*NETS, NetworkInfo("T", 4, "default", "shop", "other")),
)


def names_of(*states: DesiredNetwork) -> NameIndex:
    index, names = DesiredIndex(), NameIndex()
    for desired in states:
        names.advance(desired, index, index.advance(desired))
    return names


def resolve(names: NameIndex, name: str, asker: str, kind: int = TYPE_A) -> Resolution:
    return names.resolve(name, kind, names.asker(asker))


def addresses(names: NameIndex, name: str, asker: str) -> list[str]:
    return sorted(place.address for place in resolve(names, name, asker).places)


@pytest.mark.parametrize(
    ("asker", "name", "expected"),
    [
        (WEB, "web", ["10.120.0.1"]),
        (WEB, "www", ["10.120.0.1"]),
        (WEB, "www.shop", ["10.120.0.1"]),
        (WEB, "web.shop", ["10.120.0.1"]),
        (WEB, "web.shop.fairway.internal", ["10.120.0.1"]),
        (WEB, "web.fairway.internal", ["10.120.0.1"]),
        (WEB, "2.web", ["10.112.2.11"]),
        (WEB, "web.2", ["10.112.2.11"]),
        (WEB, "2.web.shop", ["10.112.2.11"]),
        (WEB, "web.2.shop.fairway.internal", ["10.112.2.11"]),
        (WEB, "tasks.web", ["10.112.1.11", "10.112.2.11", "10.112.3.11"]),
        (WEB, "none", ["10.120.0.3"]),
        (WEB, "many", ["10.112.1.101", "10.112.1.102"]),
        (WEB, "3.many", ["10.112.1.103"]),
        (WEB, "empty", []),
        (WEB, "tasks.empty", []),
        (WEB, "both", ["10.120.0.9"]),
        (WEB, "left", ["10.120.0.9"]),
        (BACK, "both", ["10.120.0.9"]),
        (BACK, "right.x", ["10.120.0.9"]),
        (HOST, "blog.blog", ["10.120.0.4"]),
        (HOST, "web.shop", ["10.120.0.1"]),
        ("127.0.0.1", "web.shop", ["10.120.0.1"]),
        (BLOG, "blog", ["10.120.0.4"]),
        (WEB, "localhost", ["127.0.0.1"]),
        (WEB, "x.localhost", ["127.0.0.1"]),
        (WEB, "shop", []),  # exists, because web.shop does (RFC 8020)
        (WEB, "2.shop", []),
        (WEB, "fairway.internal", []),
        (WEB, "_tcp.web", []),
    ],
)
def test_found(asker: str, name: str, expected: list[str]) -> None:
    names = names_of(DESIRED)
    assert resolve(names, name, asker).outcome is Outcome.FOUND
    assert addresses(names, name, asker) == expected


@pytest.mark.parametrize(
    ("asker", "name", "outcome"),
    [
        (WEB, "nobody", Outcome.MISSING),
        (WEB, "blog.blog.fairway.internal", Outcome.MISSING),
        (WEB, "blog.fairway.internal", Outcome.MISSING),
        (WEB, "right.x.shop.fairway.internal", Outcome.MISSING),
        (BACK, "left", Outcome.MISSING),
        (BACK, "web", Outcome.MISSING),
        (WEB, "9.web", Outcome.MISSING),
        (WEB, "9.web.shop", Outcome.MISSING),
        (WEB, "_nope._tcp.web", Outcome.MISSING),
        (WEB, "nobody.shop", Outcome.FOREIGN),
        (WEB, "go.web", Outcome.FOREIGN),
        (WEB, "example.com", Outcome.FOREIGN),
        (BLOG, "web.shop", Outcome.FOREIGN),
        (BLOG, "web", Outcome.MISSING),
        (BLOG, "web.shop.fairway.internal", Outcome.MISSING),
        (BLOG, "_http._tcp.many.shop.fairway.internal", Outcome.MISSING),
        (HOST, "web", Outcome.MISSING),
        (WEB, "x.onion", Outcome.MISSING),
        (WEB, "x.invalid", Outcome.MISSING),
        (WEB, "1.77.254.169.in-addr.arpa", Outcome.MISSING),
        (WEB, "", Outcome.FOREIGN),
        (STRANGER, "web", Outcome.UNKNOWN_ASKER),
        (STRANGER, "web.shop", Outcome.UNKNOWN_ASKER),
        (STRANGER, "example.com", Outcome.FOREIGN),
        ("203.0.113.9", "example.com", Outcome.REFUSED),
        ("203.0.113.9", "web", Outcome.REFUSED),
        ("203.0.113.9", "11.2.112.10.in-addr.arpa", Outcome.REFUSED),
    ],
)
def test_not_found(asker: str, name: str, outcome: Outcome) -> None:
    assert resolve(names_of(DESIRED), name, asker).outcome is outcome


def test_a_name_below_an_app_that_nobody_outside_knows_does_not_exist() -> None:
    names = names_of(DESIRED)
    assert resolve(names, "nobody.shop", WEB).ours_if_unanswered
    assert not resolve(names, "web.shop", BLOG).ours_if_unanswered
    assert not resolve(names, "example.com", WEB).ours_if_unanswered


def test_a_type_that_no_host_asks_for_goes_to_those_who_know_the_top_of_dns() -> None:
    names = names_of(DESIRED)
    assert resolve(names, "com", WEB, kind=43).outcome is Outcome.FOREIGN
    assert resolve(names, "web", WEB, kind=43).outcome is Outcome.FOUND


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("_80._tcp.web", [("web.shop.fairway.internal", 80)]),
        ("_81._udp.web.shop", [("web.shop.fairway.internal", 81)]),
        ("_http._tcp.many", [("many.1.shop.fairway.internal", 80), ("many.2.shop.fairway.internal", 80)]),
        ("_53._udp.2.many", [("many.2.shop.fairway.internal", 53)]),
        ("_80._tcp.tasks.one.shop.fairway.internal", [("one.1.shop.fairway.internal", 80)]),
        ("_http._tcp.empty", []),
    ],
)
def test_services_are_found_by_port(name: str, targets: list[tuple[str, int]]) -> None:
    names = names_of(DESIRED)
    found = resolve(names, name, WEB, TYPE_SRV)
    assert found.outcome is Outcome.FOUND
    assert [(place.name, port) for place, port in found.services] == targets
    for place, _ in found.services:
        assert addresses(names, place.name, WEB) == [place.address], "a target is a name that the asker can look up"


def pointer(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.112.2.11", "web.2.shop.fairway.internal"),
        ("fd00:f00d::10.112.2.11", "web.2.shop.fairway.internal"),
        ("10.120.0.1", "web.shop.fairway.internal"),
        ("fd00:f00d::10.120.0.1", "web.shop.fairway.internal"),
    ],
)
def test_the_reverse_name_is_told_to_those_who_may_reach_it(address: str, name: str) -> None:
    names = names_of(DESIRED)
    assert resolve(names, pointer(address), WEB).pointer == name
    assert resolve(names, pointer(address), HOST).pointer == name
    assert resolve(names, pointer(address), BLOG).outcome is Outcome.MISSING
    assert resolve(names, pointer(address), STRANGER).outcome is Outcome.UNKNOWN_ASKER


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("1.1.1.1.in-addr.arpa", Outcome.FOREIGN),
        ("10.in-addr.arpa", Outcome.FOREIGN),
        ("2.112.10.in-addr.arpa", Outcome.FOUND),
        ("99.9.112.10.in-addr.arpa", Outcome.MISSING),
        ("300.9.112.10.in-addr.arpa", Outcome.FOREIGN),
        ("1.2.3.4.5.in-addr.arpa", Outcome.FOREIGN),
        (pointer("2001:db8::1"), Outcome.FOREIGN),
        (pointer("fd00:f00d::1"), Outcome.MISSING),
        (pointer("fd00:f00d::1").split(".", 3)[3], Outcome.FOUND),
        ("x.ip6.arpa", Outcome.FOREIGN),
    ],
)
def test_reverse_names_of_our_pools_are_ours(name: str, outcome: Outcome) -> None:
    assert resolve(names_of(DESIRED), name, WEB).outcome is outcome


def test_ipv6_addresses_come_with_the_network_that_is_shared() -> None:
    names = names_of(DESIRED)
    assert resolve(names, "web", WEB).places[0].address_ipv6 == "fd00:f00d::a78:1"
    assert resolve(names, "both", WEB).places[0].address_ipv6 == "fd00:f00d::a78:9"
    assert resolve(names, "both", BACK).places[0].address_ipv6 == ""
    assert resolve(names, "both.shop", HOST).places[0].address_ipv6 == "fd00:f00d::a78:9"
    assert resolve(names, pointer("fd00:f00d::10.120.0.9"), BACK).outcome is Outcome.MISSING
    without = names_of(replace(DESIRED, config=replace(CONFIG_6, ipv6_prefix="")))
    assert resolve(without, "web", WEB).places[0].address_ipv6 == ""


def test_a_name_moves_with_its_service_and_goes_with_it() -> None:
    renamed = (replace(FRONTENDS[0], service="api", aliases=()), *FRONTENDS[1:])
    names = names_of(DESIRED, replace(DESIRED, frontends=renamed))
    assert addresses(names, "api", WEB) == ["10.120.0.1"]
    assert resolve(names, "web", WEB).outcome is Outcome.MISSING
    assert resolve(names, "www", WEB).outcome is Outcome.MISSING
    assert resolve(names, pointer("10.120.0.1"), WEB).pointer == "api.shop.fairway.internal"
    names = names_of(DESIRED, replace(DESIRED, frontends=()))
    assert resolve(names, "web", HOST).outcome is Outcome.MISSING
    assert resolve(names, pointer("10.120.0.1"), HOST).outcome is Outcome.MISSING
    assert resolve(names, "shop", HOST).outcome is Outcome.MISSING


def test_readiness_is_seen_at_once() -> None:
    ready = tuple(replace(each, ready=not each.ready) for each in MANY)
    names = names_of(DESIRED, replace(DESIRED, endpoints=(*ENDPOINTS, *ready, OTHER)))
    assert addresses(names, "many", WEB) == ["10.112.1.103"]


def test_an_address_that_passes_to_another_task_asks_as_that_one() -> None:
    blog = Endpoint("new", "blog.2", "id-blog", "node1", WEB, True, ("B",))
    moved = tuple(each for each in DESIRED.endpoints if each.address != WEB)
    names = names_of(DESIRED, replace(DESIRED, endpoints=(blog, *moved)))
    assert addresses(names, "blog", WEB) == ["10.120.0.4"]
    assert resolve(names, "web", WEB).outcome is Outcome.MISSING


def test_tenants_with_apps_of_one_name_see_their_own() -> None:
    names = names_of(TWO_TENANTS)
    for name in ("web", "web.shop", "web.shop.fairway.internal"):
        assert addresses(names, name, WEB) == ["10.120.0.1"]
        assert addresses(names, name, "10.112.1.60") == ["10.120.0.77"]
    assert resolve(names, "many.shop.fairway.internal", "10.112.1.60").outcome is Outcome.MISSING
    assert resolve(names, pointer("10.120.0.77"), WEB).outcome is Outcome.MISSING


def opened(service: str, *peers: Selector, port: int = 80, dry_run: bool = False) -> Policy:
    """Lets `peers` reach a service of app shop."""
    rule = PolicyRule(tuple(Peer(each) for each in peers), (PolicyPort("tcp", port, port),))
    return Policy("p", "open", Selector("default", "shop", service), (rule,), None, dry_run)


def with_policies(*policies: Policy) -> DesiredNetwork:
    return replace(TWO_TENANTS, policies=policies)


@pytest.mark.parametrize(
    ("asker", "name", "expected"),
    [
        (BLOG, "web.shop", ["10.120.0.1"]),
        (BLOG, "web.shop.fairway.internal", ["10.120.0.1"]),
        (BLOG, "web.shop.default", ["10.120.0.1"]),
        (BLOG, "2.web.shop", ["10.112.2.11"]),
        (BLOG, "tasks.web.shop", ["10.112.1.11", "10.112.2.11", "10.112.3.11"]),
        (BLOG, "many.shop", ["10.112.1.101", "10.112.1.102"]),
        (BLOG, "shop", []),
        ("10.112.1.60", "web.shop", ["10.120.0.77"]),  # of its own tenant
        ("10.112.1.60", "web.shop.default", ["10.120.0.1"]),
        ("10.112.1.60", "web.shop.default.fairway.internal", ["10.120.0.1"]),
        ("10.112.1.60", "2.web.shop.default", ["10.112.2.11"]),
        ("10.112.1.60", "many.shop.default", ["10.112.1.101", "10.112.1.102"]),
        ("10.112.1.60", "shop.default.fairway.internal", []),
        ("10.112.1.60", "default", []),  # exists, because web.shop.default does
        (HOST, "web.shop.other", ["10.120.0.77"]),
    ],
)
def test_who_may_reach_a_service_by_a_policy_knows_its_names(asker: str, name: str, expected: list[str]) -> None:
    peers = (Selector("default", "blog"), Selector("other", "shop", "web"))
    names = names_of(with_policies(opened("web", *peers), opened("many", *peers)))
    found = resolve(names, name, asker)
    assert found.outcome is Outcome.FOUND
    assert addresses(names, name, asker) == expected
    for place in found.places:
        assert place.address_ipv6 == ipv6_of("fd00:f00d::/96", place.address)
        if asker != HOST:
            assert place.address in addresses(names, place.name, asker), "its complete name leads to it, too"
            assert resolve(names, pointer(place.address), asker).pointer == place.name


def test_a_policy_tells_nobody_else_and_no_other_name() -> None:
    names = names_of(with_policies(opened("web", Selector("other", "shop", "web"))))
    for asker, name in ((BLOG, "web.shop"), (BLOG, "web.shop.default"), (BLOG, "shop.default"), (BACK, "web")):
        missing = f"{name}.fairway.internal"
        assert resolve(names, missing, asker).outcome is Outcome.MISSING, (asker, name)
    for name in ("many.shop.default", "www.shop.default", "many.shop", "www"):
        assert resolve(names, f"{name}.fairway.internal", "10.112.1.60").outcome is Outcome.MISSING, name
    assert resolve(names, "nobody.shop.default", "10.112.1.60").ours_if_unanswered
    assert resolve(names, pointer("10.120.0.1"), BLOG).outcome is Outcome.MISSING
    assert resolve(names, pointer("10.112.1.101"), "10.112.1.60").outcome is Outcome.MISSING


def test_ports_across_tenants_are_found_by_srv() -> None:
    names = names_of(with_policies(opened("many", Selector("other"))))
    found = resolve(names, "_http._tcp.many.shop.default", "10.112.1.60", TYPE_SRV)
    assert [(place.name, port) for place, port in found.services] == [
        (f"many.{slot}.shop.default.fairway.internal", 80) for slot in (1, 2)
    ]


def test_a_name_comes_and_goes_with_the_policy_that_opens_the_way() -> None:
    blog, closed = Selector("default", "blog"), Policy("q", "closed", Selector("default", "blog"), None, ())
    elsewhere = PolicyRule((Peer(Selector("default", "shop")),), (PolicyPort("tcp", 81, 90),))
    other_ports = replace(closed, egress=(elsewhere,))
    own = replace(FRONTENDS[0], policy=replace(opened("web", blog), policy_id="id-web"))
    steps = (
        (with_policies(opened("web", blog)), True),
        (with_policies(), False),
        (with_policies(opened("web", blog, dry_run=True)), False),
        (with_policies(opened("web", blog), closed), False),
        (with_policies(opened("web", blog), other_ports), False),
        (with_policies(opened("web", blog, port=85), other_ports), True),
        (TWO_TENANTS, False),
        (replace(TWO_TENANTS, frontends=(own, *TWO_TENANTS.frontends[1:])), True),
        (replace(TWO_TENANTS, frontends=TWO_TENANTS.frontends[1:]), False),
    )
    index, names = DesiredIndex(), NameIndex()
    for desired, known in steps:
        names.advance(desired, index, index.advance(desired))
        assert addresses(names, "web.shop", BLOG) == (["10.120.0.1"] if known else [])


def test_a_task_that_is_only_about_to_run_knows_its_names() -> None:
    starting = LocalTask("new", "10.112.1.99", ("B",), service_id="id-blog")
    desired = replace(with_policies(opened("web", Selector("default", "blog"))), tasks=(starting,))
    assert addresses(names_of(desired), "web.shop", starting.address) == ["10.120.0.1"]
