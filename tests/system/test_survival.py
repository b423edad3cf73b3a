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


def test_killing_any_daemon_fails_no_request_and_restarts_no_container(site: Cluster) -> None:
    before = containers(site)
    with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
        for host in HOSTS:  # one of them leads
            site.lab.restart_daemon(host)
            site.wait(lambda host=host: bool(site.json("status", host=host)), f"{host} answers again")  # type: ignore[misc]
            site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
        result = finish()
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100
    assert containers(site) == before


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_draining_a_host_fails_no_request(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    with steady_load(site, f"http://{site.vip('web')}:8000/") as finish:
        site.fairway("node", "drain", host)
        names = site.node_names()
        assert all(names[task["node_id"]] != host for task in site.tasks("web") if task["desired"] == "running")
        result = finish()
    site.fairway("node", "activate", host)
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_power_cut_loses_tasks_for_less_than_eight_seconds(site: Cluster, which: str) -> None:
    leader = site.leader()
    host = leader if which == "leader" else others(leader)[0]
    left = others(host)[0]
    site.lab.client(via=others(host))
    url = f"http://{site.vip('web')}:8000/"
    with steady_load(site, url) as finish:
        site.lab.kill(host)
        seconds = site.wait(lambda: site.ready("web", REPLICAS, left), "the lost tasks run elsewhere")
        result = finish()
    assert seconds < BACK_SECONDS_MAX
    assert result["longest_outage_seconds"] < BACK_SECONDS_MAX, result["reasons"]
    with steady_load(site, url, seconds=2) as finish:
        site.wait(lambda: site.ready("web", REPLICAS, left), "still ready")
        assert finish()["failed"] == 0
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
    with steady_load(site, f"http://{site.vip('web')}:8000/", seconds=3) as finish:
        site.wait(lambda: site.ready("web", 5, "host-1"), "still ready")
        assert finish()["failed"] == 0


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
    site.fairway("scale", f"web={REPLICAS - 1}", host=majority)
    site.wait(lambda: site.ready("web", REPLICAS - 1, majority), "the majority goes on")
    site.lab.heal()
    site.wait(lambda: len(site.tasks("web", host=host)) == REPLICAS - 1, f"{host} follows again")
    site.wait(lambda: all(v["node"]["state"] == "ready" for v in site.json("node", "ls")), "all are ready")
    site.wait(lambda: site.ready("web", REPLICAS - 1, host), "no task runs twice")
