"""The promises of the whole: what a client sees while daemons die, hosts are drained and power is cut."""

from __future__ import annotations

import pytest

from tests.system.cluster import Cluster, steady_load
from tests.system.conftest import REPLICAS

HOSTS = ("host-1", "host-2", "host-3")
BACK_SECONDS_MAX = 8.0


def containers(cluster: Cluster) -> dict[str, int]:
    """Task id -> process id of every running task."""
    return {task["meta"]["id"]: task["status"]["pid"] for task in cluster.tasks("web")}


def others(host: str) -> list[str]:
    return [name for name in HOSTS if name != host]


def serves(cluster: Cluster, url: str, seconds: int) -> bool:
    """Whether all requests of so many seconds are answered."""
    with steady_load(cluster, url, seconds=seconds) as finish:
        return int(finish()["failed"]) == 0


def test_killing_any_daemon_fails_no_request_and_restarts_no_container(site: Cluster) -> None:
    before = containers(site)
    with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
        for host in HOSTS:  # one of them leads
            site.restart(host)
            site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
        result = finish()
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100
    assert containers(site) == before


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_draining_a_host_fails_no_request(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    try:
        with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
            site.fairway("node", "drain", host)
            names = site.node_names()
            assert all(names[task["node_id"]] != host for task in site.tasks("web") if task["desired"] == "running")
            result = finish()
    finally:
        site.wait(lambda: bool(site.json("node", "activate", host)), f"{host} takes tasks again")
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_power_cut_loses_tasks_for_less_than_eight_seconds(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    left = others(host)[0]
    url = f"http://{site.vip('web')}:8000/"
    site.lab.client(via=others(host))
    try:
        with steady_load(site, url) as finish:
            site.lab.kill(host)
            seconds = site.wait(lambda: site.ready("web", REPLICAS, left), "the lost tasks run elsewhere")
            result = finish()
        assert seconds < BACK_SECONDS_MAX
        assert result["longest_outage_seconds"] < BACK_SECONDS_MAX, result["reasons"]
        site.wait(lambda: serves(site, url, 2), "no request fails any more")
        assert site.ready("web", REPLICAS, left)
    finally:
        if not site.lab.is_on(host):
            site.lab.start(host)
        site.lab.client()


def test_after_a_power_cut_of_all_hosts_everything_comes_back(site: Cluster) -> None:
    site.fairway("token", "create", "--role", "worker", "--valid", "1h")
    tokens = {token["meta"]["id"] for token in site.json("token", "ls")}
    site.fairway("scale", "web=5")
    lost = containers(site).keys()
    for host in HOSTS:
        site.lab.kill(host)
    for host in HOSTS:
        site.lab.start(host)
    site.wait(
        lambda: site.ready("web", 5, "host-1") and not lost & containers(site).keys(), "the application runs again"
    )
    assert {token["meta"]["id"] for token in site.json("token", "ls")} == tokens
    site.wait(lambda: serves(site, f"http://{site.vip('web')}:8000/", 3), "no request fails any more")
    assert site.ready("web", 5, "host-1")


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_minority_refuses_writes_and_comes_back_when_healed(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    majority = others(host)[0]
    site.lab.partition([host])
    site.wait(lambda: not site.has_quorum(host), f"{host} knows that it is alone")
    refused = site.fairway("scale", "web=1", host=host, ok=False)
    assert refused.returncode == 3
    assert "majority" in refused.stderr
    site.wait(lambda: site.has_quorum(majority), "the majority has a leader")
    site.fairway("scale", f"web={REPLICAS - 1}", host=majority)
    site.wait(lambda: site.ready("web", REPLICAS - 1, majority), "the majority goes on")
    site.lab.heal()
    site.wait(lambda: len(site.tasks("web", host=host)) == REPLICAS - 1, f"{host} follows again")
    site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
    site.wait(lambda: site.ready("web", REPLICAS - 1, host), "no task runs twice")
