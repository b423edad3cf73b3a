"""What a client at 100 requests a second sees of new versions, brought in in each way there is: nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from cli.failure import EXIT_PAUSED, EXIT_ROLLED_BACK
from tests.system.cluster import Cluster, steady_load

RATE_PER_SECOND = 100
REPLICAS = 4
WEB = """
name: {app}
services:
  web:
    image: static-web:1
    init: true
    expose: ["8000"]
    stop_grace_period: 2s
    environment: {{ROUND: "{round}"}}
    {more}
    deploy:
      replicas: {replicas}
      update_config: {{parallelism: 2, failure_action: {action}}}
    x-fairway: {{{extension}}}
"""
FAILING = 'command: ["sh", "-c", "exit 3"]'
CANARY = "rollout: {strategy: canary, steps: [{share: 25%}]}"
BLUE_GREEN = "rollout: {strategy: blue-green, keep: 1m}"


class Site:
    def __init__(self, cluster: Cluster, app: str) -> None:
        self.cluster, self.app, self.web = cluster, app, f"{app}/web"

    def deploy(self, round: str, extension: str = "", more: str = "", code: int = 0, action: str = "rollback") -> None:
        """Fails where the command does not end with `code`."""
        text = WEB.format(app=self.app, round=round, replicas=REPLICAS, extension=extension, more=more, action=action)
        done = self.cluster.deploy(text, ok=code == 0)
        assert done.returncode == code, done.stdout + done.stderr

    def rounds(self) -> list[str]:
        """Of the tasks that get traffic, sorted."""
        serving = self.cluster.serving(self.web)
        tasks = self.cluster.tasks(self.web)
        return sorted(task["spec"]["container"]["environment"]["ROUND"] for task in tasks if task["address"] in serving)

    def change_leader(self) -> None:
        """The daemon that leads is restarted, so that it hands over; all are ready when this returns."""
        cluster = self.cluster
        cluster.restart(cluster.leader(), number=signal.SIGTERM)
        cluster.make_whole()

    def ids(self) -> set[str]:
        serving = self.cluster.serving(self.web)
        return {task["meta"]["id"] for task in self.cluster.tasks(self.web) if task["address"] in serving}


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    app = f"rollouts-{cluster.lab.name}"
    made = Site(cluster, app)
    made.deploy("first")
    yield made
    cluster.remove(app)


def no_request_failed(result: dict[str, Any]) -> None:
    assert result["failed"] == 0, f"{result['failed']} of {result['sent']} failed: {result['reasons']}"
    assert result["ok"] >= RATE_PER_SECOND // 4, "the test was over before the load began"


@pytest.fixture
def load(site: Site) -> Iterator[None]:
    """Requests all through the test, none of which may fail."""
    url = f"http://{site.cluster.vip(site.web)}:8000/"
    with steady_load(site.cluster, url, rate=RATE_PER_SECOND) as finish:
        yield
        no_request_failed(finish())


@pytest.mark.usefixtures("load")
def test_a_rolling_update_two_tasks_at_a_time(site: Site) -> None:
    site.deploy("rolled")
    assert site.rounds() == ["rolled"] * REPLICAS


@pytest.mark.usefixtures("load")
def test_a_canary_waits_for_a_person_and_is_promoted(site: Site) -> None:
    (before,) = set(site.rounds())
    site.deploy("canary", CANARY, code=EXIT_PAUSED)
    site.cluster.wait(
        lambda: site.rounds() == sorted([before] * 3 + ["canary"]), "the canary has taken the place of one"
    )
    site.change_leader()
    site.cluster.fairway("service", "promote", site.web)
    assert site.rounds() == ["canary"] * REPLICAS


@pytest.mark.usefixtures("load")
def test_blue_green_switches_at_once_and_back(site: Site) -> None:
    before, (old,) = site.ids(), set(site.rounds())
    site.deploy("blue", BLUE_GREEN)
    assert site.rounds() == ["blue"] * REPLICAS
    after = site.ids()
    assert before.isdisjoint(after)
    site.cluster.fairway("service", "rollback", site.web)
    assert site.ids() == before and set(site.rounds()) == {old}
    site.cluster.wait(
        lambda: {task["meta"]["id"] for task in site.cluster.tasks(site.web)} == before, "the other side is gone"
    )


@pytest.mark.usefixtures("load")
def test_an_update_that_fails_goes_back_by_itself(site: Site) -> None:
    (before,) = set(site.rounds())
    site.deploy("bad", more=FAILING, code=EXIT_ROLLED_BACK)
    assert site.rounds() == [before] * REPLICAS
    history = site.cluster.json("service", "history", site.web)
    assert [revision["failed"] for revision in history[-2:]] == [True, False]
    assert history[-1]["back_to"] == history[-3]["generation"]


@pytest.mark.usefixtures("load")
def test_an_update_that_continues_tries_every_slot_though_all_of_them_fail(site: Site) -> None:
    before = site.ids()
    site.deploy("passed over", more=FAILING, action="continue")
    tried = [
        task
        for task in site.cluster.json("ps", site.web, "-a")
        if task["spec"]["container"]["environment"]["ROUND"] == "passed over"
    ]
    assert {task["slot"] for task in tried} == set(range(1, REPLICAS + 1))  # `pause` ends with the first two
    assert site.ids() == before, "the old tasks serve in their place"
    site.deploy("mended", action="continue")
    assert site.rounds() == ["mended"] * REPLICAS
