"""Priorities and groups on real hosts: whose place is given up while no request fails, and what comes as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.system.cluster import Cluster, steady_load

RATE_PER_SECOND = 100
# A quarter of one host's CPU each: four of them fill it.
BATCH = """
name: batch-{lab}
x-here: &here
  image: shop-api:1
  init: true
  stop_grace_period: 1s
  deploy:
    replicas: {replicas}
    placement: {{constraints: [node.labels.full == yes]}}
    resources: {{reservations: {{cpus: "{quarter}"}}}}
services:
  batch:
    <<: *here
    expose: ["8000"]
    x-fairway: {{priority: -10}}
"""
PAY = """
name: pay-{lab}
services:
  pay:
    image: static-web:1
    stop_grace_period: 1s
    deploy:
      placement: {{constraints: [node.labels.full == yes]}}
      resources: {{reservations: {{cpus: "{half}"}}}}
    x-fairway: {{priority: 100}}
"""
RING = """
name: ring-{lab}
x-here: &here {{image: static-web:1, stop_grace_period: 1s, x-fairway: {{priority: -10, group: ring}}}}
services:
  head:
    <<: *here
    deploy:
      placement: {{constraints: [node.labels.full == yes]}}
      resources: {{reservations: {{cpus: "{half}"}}}}
  worker:
    <<: *here
    deploy: {{replicas: 2}}
"""


class Full:
    """A host that four tasks of `batch` fill, seen from its cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        (millis,) = (
            int(view["node"]["description"]["cpu_millis"])
            for view in cluster.json("node", "ls")
            if view["node"]["meta"]["name"] == "host-2"
        )
        lab = cluster.lab.name
        self.words = {"lab": lab, "quarter": f"{millis // 4 / 1000:.3f}", "half": f"{millis // 4 * 2 / 1000:.3f}"}
        self.batch, self.pay, self.ring = f"batch-{lab}/batch", f"pay-{lab}/pay", f"ring-{lab}"

    def deploy(self, text: str, *options: str, replicas: int = 4) -> None:
        text_in = text.format(replicas=replicas, **self.words)
        self.cluster.fairway("deploy", "-", "--timeout", "60s", *options, text_in=text_in)

    def pending(self, service: str) -> list[dict[str, object]]:
        return [task for task in self.cluster.tasks(service) if not task["node_id"]]


@pytest.fixture(scope="module")
def full(cluster: Cluster) -> Iterator[Full]:
    cluster.settle()
    cluster.fairway("node", "label", "host-2", "full=yes")
    made = Full(cluster)
    made.deploy(BATCH)
    yield made
    for app in ("ring", "pay", "batch"):
        cluster.remove(f"{app}-{cluster.lab.name}")
    cluster.fairway("node", "label", "host-2", "full-")


def test_a_task_of_high_priority_gets_its_place_and_clients_of_the_lower_see_nothing(full: Full) -> None:
    cluster = full.cluster
    before = {task["meta"]["id"] for task in cluster.tasks(full.batch)}
    cluster.wait_served(full.batch, 8000)
    with steady_load(cluster, f"http://{cluster.vip(full.batch)}:8000/healthz", rate=RATE_PER_SECOND) as finish:
        full.deploy(PAY)
        result = finish()
    assert result["failed"] == 0, f"{result['failed']} of {result['sent']} failed: {result['reasons']}"
    assert result["ok"] > 0
    (pay,) = cluster.tasks(full.pay)
    assert pay["status"]["ready"] and cluster.node_names()[pay["node_id"]] == "host-2"

    stopped = [task for task in cluster.json("ps", full.batch, "-a") if task.get("preempted")]
    assert len(stopped) == 2 and {task["preempted"]["task_id"] for task in stopped} == {pay["meta"]["id"]}
    assert {task["meta"]["id"] for task in stopped} < before

    def waiting() -> bool:
        """Whether two tasks wait, and say for whom."""
        found = [each for each in cluster.json("why", full.batch)["tasks"] if not each["node"]]
        count = sum(len(each["tasks"]) for each in found)
        return count == 2 and all(f"{full.pay}.1" in each["reason"] for each in found)

    cluster.wait(waiting, "two wait and say for whom")

    cluster.fairway("rm", f"pay-{cluster.lab.name}")
    cluster.wait(lambda: cluster.ready(full.batch, 4, "host-1"), "what was stopped runs again")


def test_a_group_waits_as_a_whole_and_comes_in_one_transaction(full: Full) -> None:
    cluster = full.cluster
    full.deploy(RING, "--detach")
    cluster.wait(lambda: "CPU" in cluster.pending_reasons(f"{full.ring}/worker"), "the worker waits for the head")
    cluster.wait(
        lambda: [len(full.pending(f"{full.ring}/{name}")) for name in ("head", "worker")] == [1, 2], "all three wait"
    )

    full.deploy(BATCH, replicas=2)
    cluster.wait(
        lambda: cluster.ready(f"{full.ring}/head", 1, "host-1") and cluster.ready(f"{full.ring}/worker", 2, "host-1"),
        "the whole group runs",
    )

    def assigned() -> list[int]:
        """The revisions of the store at which its tasks got their hosts."""
        events = map(json.loads, cluster.fairway("events", "--app", full.ring, "-o", "json").stdout.splitlines())
        return [event["revision"] for event in events if event["action"] == "assigned"]

    cluster.wait(lambda: len(assigned()) >= 3, "the events are there")
    assert len(assigned()) == 3 and len(set(assigned())) == 1
