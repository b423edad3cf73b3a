"""Where tasks go on real hosts, what is said of those that go nowhere, and that doing what it says helps at once."""

from __future__ import annotations

import contextlib
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
# A host of a lab has 4 GiB and 4 CPUs for reservations.
RESERVING = """
services:
  large: &base
    image: static-web:1
    init: true
    stop_grace_period: 1s
    deploy:
      replicas: 0
      placement: {{constraints: ["node.hostname == {host}"]}}
      resources: {{reservations: {{memory: 3g}}}}
  busy:
    <<: *base
    deploy:
      replicas: 0
      placement: {{constraints: ["node.hostname == {host}"]}}
      resources: {{reservations: {{cpus: "3"}}}}
"""
AT_ONCE_SECONDS_MAX = 25.0  # of a machine with much to do; a pass that nothing wakes comes after 30


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


@contextlib.contextmanager
def shares(cluster: Cluster, host: str, memory_percent: int, cpu_percent: int) -> Iterator[None]:
    """So much of what the host has can be reserved by tasks."""
    file = cluster.lab.paths.host_state(host) / "etc/fairwayd.toml"
    before = file.read_text()
    assert before.rpartition("[")[2].startswith("resources]")
    whole = reservable(cluster, host)
    parts = (whole[0] * memory_percent // 100, whole[1] * cpu_percent // 100)
    file.write_text(f"{before}memory_percent = {memory_percent}\ncpu_percent = {cpu_percent}\n")
    try:
        cluster.lab.restart_daemon(host)
        cluster.wait(lambda: reservable(cluster, host) == parts, "the cluster knows what the host gives")
        yield
    finally:
        file.write_text(before)
        cluster.lab.restart_daemon(host)
        cluster.wait(lambda: reservable(cluster, host) == whole, "the host is as before")


def reservable(cluster: Cluster, host: str) -> tuple[int, int]:
    """Memory in bytes and CPU in thousandths, of a host that is ready."""
    node = cluster.json("node", "show", host)["node"]
    has = node["description"]
    return (int(has["memory_bytes"]), int(has["cpu_millis"])) if node["state"] == "ready" else (0, 0)


def test_a_host_gives_more_or_less_than_it_has_as_it_is_told(cluster: Cluster, deployed: Callable[[str], str]) -> None:
    host = next(host for host in reversed(cluster.lab.hosts()) if host != cluster.leader())
    app = deployed(RESERVING.format(host=host))

    def ready(service: str) -> set[str]:
        return {task["meta"]["id"] for task in cluster.tasks(f"{app}/{service}") if task["status"]["ready"]}

    with shares(cluster, host, memory_percent=200, cpu_percent=50):
        cluster.fairway("scale", f"{app}/large=3", f"{app}/busy=1")
        cluster.wait(lambda: len(ready("large")) == 2, "two have 6 of 4 GiB")
        large = ready("large")
        cluster.wait(
            lambda: all(cluster.pending_reasons(f"{app}/{name}") for name in ("large", "busy")), "9 GiB, 3 of 2 CPUs"
        )
        assert ready("large") == large and not ready("busy")
    cluster.wait(lambda: len(ready("busy")) == 1, "it has 3 of 4 CPUs")
    assert ready("large") == large, "what has its room keeps it"
