"""Settings of registries: what changes, what is refused, whom a pull asks, and where passwords are readable."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.errors import Refused
from daemon.identity.identity import Identity
from daemon.identity.registry_sealing import opened_password, sealed_password
from daemon.pulling import registry_plan
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from runtime.registry.address import Endpoint, parse_name
from tests.daemon.cluster_model import ClusterModel

CA = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def identity(key: bytes | None = b"k" * 32, cluster_id: str = "c1") -> Identity:
    return cast(Identity, SimpleNamespace(cluster_key=key, cluster_id=cluster_id))


class Registries:
    def __init__(self) -> None:
        self.model = ClusterModel()
        self._ids = itertools.count()

    @property
    def store(self) -> Store:
        return self.model.store

    def update(self, registry: str, sealed: bytes = b"", **fields: Any) -> objects.Registry:
        request = control.UpdateRegistryRequest(registry=registry, **fields)
        builder, shown = registry_plan.plan_update(self.store, request, sealed, lambda: f"r{next(self._ids)}")
        if len(builder):
            assert builder.build("x", "test", 1).feature_level == WORKLOADS_LEVEL
            self.model.apply(builder)
        return shown

    def names(self) -> set[str]:
        return {registry.meta.name for registry in self.store.table(objects.Registry)}


@pytest.fixture
def registries() -> Registries:
    return Registries()


def mirrors(*names: str) -> control.MirrorList:
    return control.MirrorList(mirrors=names)


def test_what_is_not_named_stays_and_what_says_nothing_is_forgotten(registries: Registries) -> None:
    registries.update("r.example:5000", insecure=False)
    assert registries.names() == set()
    registries.update("https://r.example:5000/", insecure=True)
    registries.update("r.example:5000", mirrors=mirrors("http://m.example/hub/"))
    shown = registries.update("r.example:5000", b"sealed", login=control.Login(user="ana", password=b"x"))
    assert (shown.insecure, list(shown.mirrors), shown.user) == (True, ["m.example/hub"], "ana")
    assert not shown.sealed_password
    registries.update("r.example:5000", logout=True)
    registries.update("r.example:5000", insecure=False)
    assert registries.names() == {"r.example:5000"}
    registries.update("r.example:5000", mirrors=mirrors())
    assert registries.names() == set()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ca_pem": "nonsense"}, "is not a PEM certificate"),
        ({"mirrors": mirrors("a b")}, "is no mirror"),
        ({"mirrors": mirrors(*(f"m{number}" for number in range(9)))}, "at most 8 mirrors"),
        ({"login": control.Login(user="a:b", password=b"x")}, "without ':'"),
        ({"login": control.Login(user="a")}, "a password is needed"),
        ({"logout": True}, "nobody is logged in"),
    ],
)
def test_what_makes_no_sense_is_refused(registries: Registries, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        registries.update("r.example", **fields)
    assert registries.names() == set()


def test_mirrors_are_asked_first_each_as_it_is_set_itself(registries: Registries) -> None:
    one = identity()
    sealed = sealed_password(one, "m.example", b"s3cret")
    registries.update("docker.io", mirrors=mirrors("m.example", "n.example:5000/hub"))
    registries.update("m.example", sealed, login=control.Login(user="ana", password=b"s3cret"), ca_pem=CA)
    registries.update("n.example:5000", insecure=True)
    found = registry_plan.sources(registries.store, parse_name("redis:7"), lambda each: opened_password(one, each))
    assert [(source.endpoint, source.repository) for source in found] == [
        (Endpoint("m.example", False, CA, "ana", "s3cret"), "library/redis"),
        (Endpoint("n.example:5000", True), "hub/library/redis"),
        (Endpoint("docker.io"), "library/redis"),
    ]
    assert "s3cret" not in repr(found)


def test_a_password_opens_for_its_registry_and_cluster_only() -> None:
    one = identity()
    registry = objects.Registry(user="ana", sealed_password=sealed_password(one, "r.example", b"s3cret"))
    registry.meta.name = "r.example"
    assert b"s3cret" not in registry.SerializeToString()
    assert opened_password(one, registry) == "s3cret"
    other = objects.Registry()
    other.CopyFrom(registry)
    other.meta.name = "evil.example"
    for who, what in ((one, other), (identity(b"x" * 32), registry), (identity(cluster_id="c2"), registry)):
        with pytest.raises(Refused, match="cannot be opened"):
            opened_password(who, what)
    with pytest.raises(Refused, match="no cluster key"):
        opened_password(identity(None), registry)
