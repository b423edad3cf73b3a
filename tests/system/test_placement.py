"""Where tasks go on real hosts, what is said of those that go nowhere, and that doing what it says helps at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.cluster import Cluster

BAYS = {"host-1": "a", "host-2": "a", "host-3": "b"}
SERVICES = """
x-base: &base {{image: static-web:1, stop_grace_period: 1s, environment: {{VERSION: "{version}"}}}}
services:
  web:
    <<: *base
    deploy: {{replicas: 2, placement: {{preferences: [{{spread: node.labels.bay}}]}}}}
  alone:
    <<: *base
    depends_on: [web]
    x-fairway: {{placement: {{anti_affinity: [{{service: web, required: true}}]}}}}
  bounded:
    <<: *base
    deploy: {{replicas: 3, placement: {{max_replicas_per_node: 1}}}}
  later:
    <<: *base
    deploy: {{replicas: 0, placement: {{constraints: [node.labels.bay == c]}}}}
"""
AT_ONCE_SECONDS_MAX = 10.0  # of a machine with much to do; a pass that nothing wakes comes after 30


@pytest.fixture
def bays(cluster: Cluster) -> Iterator[None]:
    for host, bay in BAYS.items():
        cluster.fairway("node", "label", host, f"bay={bay}")
    yield
    for host in BAYS:
        cluster.fairway("node", "label", host, "bay-")


def test_tasks_lie_as_the_file_says_and_what_is_pending_says_what_helps(
    cluster: Cluster, bays: None, deployed: Callable[[str], str]
) -> None:
    app = deployed(SERVICES.format(version="1"))
    names = cluster.node_names()

    def hosts(service: str) -> list[str]:
        return sorted(names[task["node_id"]] for task in cluster.tasks(f"{app}/{service}") if task["node_id"])

    assert sorted(BAYS[host] for host in hosts("web")) == ["a", "b"]
    assert set(hosts("alone")).isdisjoint(hosts("web"))
    assert hosts("bounded") == sorted(BAYS)

    # An update needs no host more: the task that comes and the one that it replaces are one replica.
    cluster.deploy(f"name: {app}\n" + SERVICES.format(version="2"))
    assert hosts("bounded") == sorted(BAYS)

    cluster.fairway("scale", f"{app}/bounded=4", f"{app}/later=1")
    cluster.wait(lambda: all(cluster.pending_reasons(f"{app}/{name}") for name in ("bounded", "later")), "two wait")
    waiting = [task for task in cluster.json("why", f"{app}/bounded")["tasks"] if not task["node"]]
    assert [task["tasks"] for task in waiting] == [[f"{app}/bounded.4"]]
    assert sorted(host["node"] for host in waiting[0]["hosts"]) == sorted(BAYS)
    assert all("as many as one host may have" in host["against"][0]["reason"] for host in waiting[0]["hosts"])

    (later,) = cluster.json("why", f"{app}/later.1")["tasks"]
    nearest = later["hosts"][0]
    command = nearest["against"][0]["remedy"].strip("`").split()
    assert command[:3] == ["fairway", "node", "label"]
    cluster.fairway(*command[1:])
    began = time.monotonic()
    cluster.wait(lambda: hosts("later") == [nearest["node"]], "the task is on the host that was made fit")
    assert time.monotonic() - began < AT_ONCE_SECONDS_MAX
