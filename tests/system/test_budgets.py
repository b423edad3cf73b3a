"""On real hosts: drains keep to budgets and say so, tenants to their quotas, and a host that is back gets its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.failure import EXIT_TIMED_OUT
from tests.system.cluster import Cluster

STATEFUL = """
services:
  db:
    image: static-web:1
    stop_grace_period: 1s
    volumes: ["data:/data"]
    deploy: {replicas: 3}
    x-fairway:
      stateful: {order: unordered}
      disruption_budget: {max_unavailable: 1}
volumes: {data: {}}
"""
WEB = """
services:
  web:
    image: static-web:1
    stop_grace_period: 1s
    deploy: {replicas: 6}
"""
AT_ONCE_SECONDS_MAX = 25.0  # of a machine with much to do; a pass that nothing wakes comes after 30


@pytest.fixture
def hosts_as_before(cluster: Cluster) -> Iterator[None]:
    yield
    for host in cluster.lab.hosts():
        cluster.fairway("node", "activate", host)
    cluster.fairway("quota", "rm", "default", ok=False)


def hosts(cluster: Cluster, service: str) -> Counter[str]:
    """Of its tasks that are ready and are to stay."""
    names = cluster.node_names()
    there = (task for task in cluster.tasks(service) if task["status"]["ready"] and task["desired"] == "running")
    return Counter(names[task["node_id"]] for task in there)


def test_two_drains_at_once_take_no_more_than_the_budget_allows(
    cluster: Cluster, deployed: Callable[[str], str], hosts_as_before: None
) -> None:
    app = deployed(STATEFUL)
    assert sorted(hosts(cluster, f"{app}/db").values()) == [1, 1, 1]
    cluster.fairway("node", "drain", "host-2", "--detach")
    cluster.wait(lambda: not hosts(cluster, f"{app}/db")["host-2"], "the first drain has its task")

    def drained_in_vain() -> str:
        done = cluster.fairway("node", "drain", "host-3", "--timeout", "4s", ok=False)
        assert done.returncode == EXIT_TIMED_OUT
        return done.stdout

    words = f"the disruption budget of {app}/db is max_unavailable 1, 2 of 3 tasks are ready"
    cluster.wait(lambda: words in drained_in_vain(), "the second drain says what it waits for")
    assert hosts(cluster, f"{app}/db") == {"host-1": 1, "host-3": 1}

    def reason() -> str:
        """Why the task of host-3 is still there."""
        (kept,) = [task for task in cluster.json("why", f"{app}/db")["tasks"] if task["node"] == "host-3"]
        return str(kept["reason"])

    cluster.wait(lambda: "disruption budget" in reason(), "why says so as well")
    cluster.fairway("node", "activate", "host-2")
    cluster.wait(lambda: hosts(cluster, f"{app}/db") == {"host-1": 1, "host-2": 1}, "then it is the second one's turn")


def test_a_task_beyond_the_quota_waits_until_it_is_raised(
    cluster: Cluster, deployed: Callable[[str], str], hosts_as_before: None, tmp_path: Path
) -> None:
    used = cluster.json("quota", "show", "default")["used"]["tasks"]
    cluster.fairway("quota", "set", "default", "--tasks", str(used + 2))
    file = tmp_path / "compose.yaml"
    file.write_text("name: beyond\n" + WEB.replace("replicas: 6", "replicas: 3"))
    try:
        assert f"ask for {used + 3} tasks" in cluster.fairway("plan", str(file)).stderr
        cluster.fairway("deploy", str(file), "--detach")
        cluster.wait(lambda: sum(hosts(cluster, "beyond/web").values()) == 2, "as many run as the quota allows")
        remedy = f"fairway quota set default --tasks {used + 3}"

        def said() -> bool:
            waiting = [task for task in cluster.json("why", "beyond/web")["tasks"] if not task["node"]]
            return any(f"`{remedy}` would be enough" in each["reason"] for each in waiting)

        cluster.wait(said, "what would be enough is said")
        cluster.fairway(*remedy.split()[1:])
        cluster.wait(
            lambda: sum(hosts(cluster, "beyond/web").values()) == 3, "the third follows at once", AT_ONCE_SECONDS_MAX
        )
    finally:
        cluster.remove("beyond")


def test_a_host_that_takes_tasks_again_gets_its_share(
    cluster: Cluster, deployed: Callable[[str], str], hosts_as_before: None
) -> None:
    cluster.fairway("node", "cordon", "host-3")
    app = deployed(WEB)
    assert hosts(cluster, f"{app}/web") == {"host-1": 3, "host-2": 3}
    cluster.fairway("node", "activate", "host-3")
    cluster.wait(lambda: len(cluster.json("rebalance", f"{app}/web", "--dry-run")["moves"]) == 2, "two had better move")
    assert hosts(cluster, f"{app}/web") == {"host-1": 3, "host-2": 3}, "a dry run moves nothing"
    cluster.fairway("rebalance", "--moves-per-minute", "600")
    try:
        said = cluster.fairway("rebalance", f"{app}/web", "--timeout", "60s").stdout
    finally:
        cluster.fairway("rebalance", "--moves-per-minute", "10")
    assert "host-1 has 3 tasks of the service, host-3 has 0" in said and "Rebalanced in" in said
    assert hosts(cluster, f"{app}/web") == {"host-1": 2, "host-2": 2, "host-3": 2}
    assert cluster.json("rebalance", f"{app}/web", "--dry-run")["moves"] == []
