"""Random apps are ones that the cluster takes, whatever the seed, and say of their tasks what they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cli.compose import project
from daemon.deploying.app_checks import check_app
from proto import objects_pb2 as objects
from tests.disorder import apps
from tests.disorder.apps import Wanted, mark_of
from tests.disorder.model import AppModel

SEEDS = 50


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_app_and_any_next_version_of_it_may_be_deployed(seed: int) -> None:
    choose = random.Random(seed)
    app = apps.random_app(choose, "v0", 18000)
    for number in range(1, 4):
        spec = project.parse(apps.compose("d-1", app), "compose.yaml", Path.cwd(), {apps.SECRET: "x"}).spec
        check_app(spec)
        for name, wanted in app.items():
            mark = mark_of(spec.services[name].container.environment)
            assert mark == (f"d-1/{name}", wanted.version, wanted.kind == apps.STATEFUL)
        after = apps.next_version(choose, app, f"v{number}", 18000)
        assert after != app
        app = after


def test_the_seeds_have_every_kind_and_every_way_of_updating() -> None:
    found = [wanted for seed in range(1000) for wanted in apps.random_app(random.Random(seed), "v", 1).values()]
    assert {wanted.kind for wanted in found} == set(apps.KINDS)
    assert {wanted.strategy for wanted in found} == {"", apps.CANARY, apps.BLUE_GREEN}
    for name in ("published", "host_mode", "dnsrr", "volume", "files", "healthcheck", "bay", "per_node_max", "breaks"):
        assert {bool(getattr(wanted, name)) for wanted in found} == {False, True}, name


def test_only_what_fails_is_mended() -> None:
    app = {"one": Wanted(apps.GLOBAL, "v1", breaks=True), "two": Wanted(apps.GLOBAL, "v1")}
    after = apps.mended(app, {"one"}, "v2")
    assert after == {"one": Wanted(apps.GLOBAL, "v2"), "two": Wanted(apps.GLOBAL, "v1")}


def test_what_the_cluster_tells_of_a_way_back_is_wanted_from_then_on() -> None:
    model = AppModel("d-1", 1)
    first = {"one": Wanted(apps.REPLICATED, "v1", replicas=1, bay="a")}
    model.deployed(first)
    spec = project.parse(apps.compose("d-1", first), "compose.yaml", Path.cwd(), {}).spec
    model.deployed({"one": Wanted(apps.REPLICATED, "v2", replicas=3)})
    told = objects.Service(meta=objects.Meta(name="one"), spec=spec.services["one"])
    told.spec.replicas = 3
    model.told(told)
    assert model.services == {"one": Wanted(apps.REPLICATED, "v1", replicas=3, bay="a")}
