"""Which name means what to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from net.desired_changes import DesiredIndex
from net.dns_names import NameIndex, Outcome
from net.model import DesiredNetwork, Endpoint, Frontend
from tests.net.world import CONFIG, ENDPOINTS, FRONTENDS, HOSTS, NETWORKS, endpoint

VIP_LESS = Frontend("id-many", "many", "shop", "default", "", (), ("A",))
MANY = tuple(endpoint("many", slot, 1, f"10.112.1.{100 + slot}", "A", slot != 3) for slot in range(1, 4))
DESIRED = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, (*FRONTENDS, VIP_LESS), (*ENDPOINTS, *MANY), NETWORKS)
WEB, BLOG, HOST, STRANGER = "10.112.1.11", "10.112.2.12", "10.112.3.1", "10.112.1.77"


def names_of(*states: DesiredNetwork) -> NameIndex:
    index, names = DesiredIndex(), NameIndex()
    for desired in states:
        names.advance(desired, index, index.advance(desired))
    return names


@pytest.mark.parametrize(
    ("asker", "name", "addresses"),
    [
        (WEB, "web", ["10.120.0.1"]),
        (WEB, "WWW", ["10.120.0.1"]),
        (WEB, "web.shop", ["10.120.0.1"]),
        (WEB, "web.shop.fairway.internal", ["10.120.0.1"]),
        (WEB, "web.fairway.internal", ["10.120.0.1"]),
        (WEB, "2.web", ["10.112.2.11"]),
        (WEB, "web.2", ["10.112.2.11"]),
        (WEB, "2.web.shop", ["10.112.2.11"]),
        (WEB, "web.2.shop.fairway.internal.", ["10.112.2.11"]),
        (WEB, "tasks.web", ["10.112.1.11", "10.112.2.11", "10.112.3.11"]),
        (WEB, "none", ["10.120.0.3"]),
        (WEB, "many", ["10.112.1.101", "10.112.1.102"]),
        (WEB, "3.many", ["10.112.1.103"]),
        (HOST, "blog.blog", ["10.120.0.4"]),
        (HOST, "web.shop", ["10.120.0.1"]),
        ("127.0.0.1", "web.shop", ["10.120.0.1"]),
        (BLOG, "blog", ["10.120.0.4"]),
    ],
)
def test_found(asker: str, name: str, addresses: list[str]) -> None:
    resolution = names_of(DESIRED).resolve(name, asker)
    assert resolution.outcome is Outcome.FOUND
    assert sorted(resolution.addresses) == addresses


@pytest.mark.parametrize(
    ("asker", "name", "outcome"),
    [
        (WEB, "nobody", Outcome.MISSING),
        (WEB, "blog.blog.fairway.internal", Outcome.MISSING),
        (WEB, "9.web", Outcome.FOREIGN),
        (WEB, "nobody.shop", Outcome.MISSING),
        (WEB, "example.com", Outcome.FOREIGN),
        (BLOG, "web.shop", Outcome.FOREIGN),
        (BLOG, "web", Outcome.MISSING),
        (HOST, "web", Outcome.MISSING),
        (STRANGER, "web", Outcome.UNKNOWN_ASKER),
        (STRANGER, "example.com", Outcome.FOREIGN),
        ("203.0.113.9", "example.com", Outcome.REFUSED),
    ],
)
def test_not_found(asker: str, name: str, outcome: Outcome) -> None:
    assert names_of(DESIRED).resolve(name, asker).outcome is outcome


def test_the_reverse_name_of_a_task_is_told_to_those_who_may_reach_it() -> None:
    names = names_of(DESIRED)
    assert names.reverse("11.2.112.10.in-addr.arpa", WEB).name == "web.2.shop.fairway.internal"
    assert names.reverse("11.2.112.10.in-addr.arpa", BLOG).outcome is Outcome.MISSING
    assert names.reverse("1.1.1.1.in-addr.arpa", WEB).outcome is Outcome.FOREIGN


def test_a_name_moves_with_its_service_and_goes_with_it() -> None:
    renamed = (replace(FRONTENDS[0], service="api", aliases=()), *FRONTENDS[1:])
    names = names_of(DESIRED, replace(DESIRED, frontends=renamed))
    assert names.resolve("api", WEB).addresses == ("10.120.0.1",)
    assert names.resolve("web", WEB).outcome is Outcome.MISSING
    names = names_of(DESIRED, replace(DESIRED, frontends=()))
    assert names.resolve("web", HOST).outcome is Outcome.MISSING


def test_an_address_that_passes_to_another_task_asks_as_that_one() -> None:
    blog = Endpoint("new", "blog.2", "id-blog", "node1", WEB, True, ("B",))
    moved = tuple(each for each in DESIRED.endpoints if each.address != WEB)
    names = names_of(DESIRED, replace(DESIRED, endpoints=(blog, *moved)))
    assert names.resolve("blog", WEB).addresses == ("10.120.0.4",)
    assert names.resolve("web", WEB).outcome is Outcome.MISSING
