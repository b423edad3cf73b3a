"""containerd is killed and hangs below a service: its tasks go on, and the host says what is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from tests.system.cluster import Cluster, run_in_task, steady_load

HOST = "host-2"
# A check by a command asks containerd for a process: one that does not come must not count against the task.
APP = """
services:
  web:
    image: static-web:1
    ports: ["8090:8000"]
    init: true
    stop_grace_period: 2s
    healthcheck: {test: [CMD, "true"], interval: 500ms, timeout: 2s, retries: 3}
    deploy: {mode: global}
  more:
    image: static-web:1
    init: true
    stop_grace_period: 1s
    deploy: {replicas: 0}
"""


@contextlib.contextmanager
def hung(cluster: Cluster) -> Iterator[None]:
    process_id = cluster.lab.process_ids(HOST)["containerd"]
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def node(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = next(
        view["node"] for view in cluster.json("node", "ls") if view["node"]["meta"]["name"] == HOST
    )
    return found


def test_a_containerd_that_is_killed_or_hangs_ends_no_task(cluster: Cluster, deployed: Callable[[str], str]) -> None:
    app = deployed(APP)

    def running() -> dict[str, int]:
        return {task["meta"]["id"]: task["status"]["pid"] for task in cluster.tasks(f"{app}/web")}

    before = running()
    there = next(task for task in cluster.tasks(f"{app}/web") if cluster.node_names()[task["node_id"]] == HOST)
    with steady_load(cluster, f"http://{cluster.lab.address(HOST)}:8090/") as finish:
        cluster.lab.restart_daemon(HOST, "containerd")
        cluster.wait(
            lambda: run_in_task(cluster, f"{app}/{there['meta']['name']}", "echo", "back") == "back\n",
            "it is started again",
        )
        with hung(cluster):
            cluster.wait(lambda: "it hangs" in node(cluster)["state_message"], "the host says so")
            cluster.fairway("scale", f"{app}/more=3")
            cluster.wait(lambda: cluster.ready(f"{app}/more", 3, "host-1"), "three more tasks are ready")
            nodes = {cluster.node_names()[task["node_id"]] for task in cluster.tasks(f"{app}/more")}
            assert HOST not in nodes
            assert cluster.ready(f"{app}/web", 3, "host-1")
        cluster.wait(lambda: not node(cluster)["state_message"], "the host is as before")
        result = finish()
    assert running() == before
    assert result["failed"] == 0, result["reasons"]
