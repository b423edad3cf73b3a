"""What a service says of names is checked by the cluster, too: not every client is ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.deploying.name_checks import name_problems
from proto import objects_pb2 as objects


def good() -> objects.ServiceSpec:
    spec = objects.ServiceSpec()
    spec.container.dns_servers.extend(["192.0.2.1", "2001:db8::1"])
    spec.container.dns_search.extend([".", "example.com"])
    spec.container.dns_options.extend(["ndots:2", "rotate"])
    spec.container.extra_hosts.add(name="db", address="host-gateway")
    spec.container.extra_hosts.add(name="cache.example.com", address="::1")
    spec.network_aliases["default"].values.append("db.example.com")
    spec.ports.add(protocol="tcp", target=80, name="http")
    return spec


def test_what_is_fit_is_taken() -> None:
    assert not list(name_problems(good()))


@pytest.mark.parametrize(
    ("alter", "word"),
    [
        (lambda spec: spec.container.dns_servers.append("192.0.2.1\nsearch evil"), "name server"),
        (lambda spec: spec.container.dns_search.append("a\nnameserver 192.0.2.9"), "search domain"),
        (lambda spec: spec.container.dns_options.append("a b"), "option"),
        (lambda spec: spec.container.extra_hosts.add(name="a b", address="192.0.2.1"), "extra host"),
        (lambda spec: spec.container.extra_hosts.add(name="a", address="b"), "extra host"),
        (lambda spec: spec.network_aliases["default"].values.append("a..b"), "alias"),
        (lambda spec: spec.network_aliases["default"].values.append("x" * 64), "alias"),
        (lambda spec: spec.ports.add(protocol="tcp", target=81, name="a_b"), "port 81"),
    ],
)
def test_what_is_not_is_named(alter: Callable[[objects.ServiceSpec], object], word: str) -> None:
    spec = good()
    alter(spec)
    found = list(name_problems(spec))
    assert len(found) == 1
    assert word in found[0]
