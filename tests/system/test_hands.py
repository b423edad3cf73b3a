"""Hands on what runs: restart, stop and signal a task through any host, and look at all that is kept of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.system.cluster import Cluster

Deploy = Callable[[str], str]
TRAPPER = """
services:
  box:
    image: static-web:1
    command: ["sh", "-c", "trap 'echo heard' HUP; echo up; while :; do sleep 0.1; done"]
    init: false
    stop_grace_period: 1s
    deploy: {replicas: 2, update_config: {parallelism: 1, delay: 0s}}
"""


def test_tasks_are_signalled_stopped_and_restarted_through_any_host(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(TRAPPER)
    assert cluster.fairway("signal", f"{app}/box", "-s", "HUP", host="host-2").stdout == f"{app}/box.1\n{app}/box.2\n"
    cluster.wait(lambda: cluster.fairway("logs", f"{app}/box").stdout.count("heard") == 2, "both heard of it")

    first = {task["meta"]["name"]: task["meta"]["id"] for task in cluster.tasks(f"{app}/box")}
    said = cluster.fairway("stop", f"{app}/box.1", "--time", "100ms", host="host-3").stdout
    assert said.startswith(f"{app}/box.1 has stopped (exit code 137); by its restart policy another one follows")
    cluster.wait(lambda: cluster.ready(f"{app}/box", 2, "host-1"), "another one has followed")
    second = {task["meta"]["name"]: task["meta"]["id"] for task in cluster.tasks(f"{app}/box")}
    assert second["box.1"] != first["box.1"] and second["box.2"] == first["box.2"]
    stopped = cluster.json("inspect", "task", first["box.1"])[0]
    assert stopped["status"]["message"] == "stopped by an operator"

    cluster.fairway("restart", f"{app}/box.2", host="host-2")
    cluster.fairway("restart", f"{app}/box")
    third = {task["meta"]["name"]: task["meta"]["id"] for task in cluster.tasks(f"{app}/box")}
    assert not set(second.values()) & set(third.values())
    kept = cluster.json("inspect", "service", f"{app}/box", host="host-2")[0]
    assert kept["generation"] == 2 and kept["rollout"]["reason"] == "restarted by an operator"


def test_what_tasks_use_and_their_processes_are_seen_through_any_host(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(TRAPPER)
    found = cluster.json("stats", app, "--no-stream", host="host-2")
    assert [each["name"] for each in found] == [f"{app}/box.1", f"{app}/box.2"]
    assert {each["node"] for each in found} <= {"host-1", "host-2", "host-3"}
    assert all(each["memory_bytes"] > 0 and each["processes"] >= 1 for each in found)
    assert all(each["cpu_percent"] > 0 and each["cpu_ns"] > 0 for each in found)
    first = cluster.json("top", f"{app}/box.2", host="host-3")[0]
    assert first["id"] == 1 and first["user"] == "root" and "trap" in first["command"]
    assert "there is no task or service" in cluster.fairway("stats", "nope", "--no-stream", ok=False).stderr
