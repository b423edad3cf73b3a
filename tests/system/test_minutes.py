"""What takes a minute, in one minute: tasks leave a host whose disk fails, and the schedules of jobs have their moment.

The first test begins the trouble, the second has its moment while it goes on, the third waits for the rest.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.host_conditions import FAILING
from daemon.orchestration.relief_plan import AT_ONCE_MAX, LEAVE_AFTER_MS
from tests.system.cluster import Cluster

HOST = "host-2"
VOLUMES = "/var/lib/fairway/volumes"
DISK_BYTES, LEFT_BYTES = 16 << 20, 64 << 10
REPLICAS = 9  # three a host: one more than may leave at once
SERVICES = """
x-base: &base {image: static-web:1, init: true, stop_grace_period: 1s}
services:
  web: {<<: *base, expose: ["8000"], deploy: {replicas: 9}}
  more: {<<: *base, deploy: {replicas: 0}}
"""
JOBS = """
x-job: &job
  image: static-web:1
  command: ["sleep", "100000"]
  init: true
  stop_grace_period: 1s
  deploy: {mode: replicated-job}
services:
  forbid: {<<: *job, x-fairway: {schedule: {cron: "* * * * *", overlap: forbid}}}
  allow: {<<: *job, x-fairway: {schedule: {cron: "* * * * *", overlap: allow}}}
  replace: {<<: *job, x-fairway: {schedule: {cron: "* * * * *", overlap: replace}}}
"""


@contextlib.contextmanager
def failing_disk(cluster: Cluster, image: Path) -> Iterator[None]:
    """The folder of volumes of HOST is on a disk of which only the beginning is left: what is written elsewhere on it
    ends with EIO."""
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run("mkfs.ext4", "-q", "-O", "^has_journal", str(image))  # which would make it read-only, another condition
    device = _run("losetup", "--find", "--show", str(image))
    mount = f"mkdir -p {VOLUMES} && mount -t ext4 -o errors=continue {device} {VOLUMES}"
    try:
        cluster.lab.run_in(HOST, ["sh", "-c", mount])
        try:
            os.truncate(image, LEFT_BYTES)
            _run("losetup", "--set-capacity", device)
            yield
        finally:
            cluster.lab.run_in(HOST, ["umount", VOLUMES])
    finally:
        _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.strip()


def conditions(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Of HOST, by kind."""
    node = cluster.json("node", "show", HOST)["node"]
    return {each["kind"]: each for each in node.get("conditions", ())} if node["state"] == "ready" else {}


@pytest.fixture(scope="module")
def trouble(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an app that has tasks on HOST, which says that its disk fails."""
    app = f"trouble-{cluster.lab.name}"
    cluster.deploy(f"name: {app}\n{SERVICES}")
    assert tasks_there(cluster, f"{app}/web")
    # A file is written at the daemon's start and then twice a minute: a restart is what does not take that long.
    with failing_disk(cluster, tmp_path_factory.mktemp("disk") / "disk.img"):
        cluster.lab.restart_daemon(HOST)
        cluster.wait(lambda: FAILING in conditions(cluster), "the host says that its disk fails")
        yield app
    cluster.lab.restart_daemon(HOST)
    cluster.wait(lambda: ready(cluster) and FAILING not in conditions(cluster), "the host is well again")
    cluster.remove(app)


def until(unix_s: float) -> None:
    time.sleep(max(0.0, unix_s - time.time()))


def ready(cluster: Cluster) -> bool:
    return all(view["node"]["state"] == "ready" for view in cluster.json("node", "ls"))


def tasks_there(cluster: Cluster, service: str) -> set[str]:
    """Those on HOST."""
    names = cluster.node_names()
    return {task["meta"]["id"] for task in cluster.tasks(service) if names.get(task["node_id"]) == HOST}


def test_a_host_whose_disk_fails_says_so_gets_nothing_new_and_keeps_what_it_has(cluster: Cluster, trouble: str) -> None:
    there = tasks_there(cluster, f"{trouble}/web")
    cluster.fairway("scale", f"{trouble}/more=3")
    cluster.wait(lambda: cluster.ready(f"{trouble}/more", 3, "host-1"), "three more tasks are ready")
    assert not tasks_there(cluster, f"{trouble}/more")
    assert VOLUMES in conditions(cluster)[FAILING]["message"]
    assert tasks_there(cluster, f"{trouble}/web") == there
    assert len(cluster.serving(f"{trouble}/web")) == REPLICAS


def test_a_moment_of_a_schedule_finds_an_earlier_run(cluster: Cluster, deployed: Callable[[str], str]) -> None:
    app = deployed(JOBS)
    names = ("forbid", "allow", "replace")
    for name in names:
        cluster.fairway("trigger", f"{app}/{name}", "--detach")

    def service(name: str) -> dict[str, Any]:
        found: dict[str, Any] = cluster.json("show", f"{app}/{name}")["service"]
        return found

    def going(name: str) -> list[int]:
        return [int(run["number"]) for run in service(name)["runs"] if run["outcome"] == "none"]

    def running(name: str) -> list[int]:
        """Runs of its tasks that run."""
        return sorted(
            int(task["run"]) for task in cluster.tasks(f"{app}/{name}") if task["status"]["state"] == "running"
        )

    cluster.wait(lambda: all(running(name) == going(name) != [] for name in names), "their runs go on")
    before = {name: going(name) for name in names}
    moments = {name: int(service(name)["next_run_unix_ms"]) for name in names}
    until(max(moments.values()) / 1000)
    cluster.wait(
        lambda: all(int(service(name)["next_run_unix_ms"]) > moments[name] for name in names), "a moment has come"
    )
    assert going("forbid") == before["forbid"]
    assert going("allow")[:-1] == before["allow"]
    assert len(going("replace")) == 1 and going("replace")[0] > before["replace"][0]
    for name in names:
        cluster.wait(lambda name=name: running(name) == going(name), f"{name}: these runs have a task, and no others")  # type: ignore[misc]


def test_tasks_leave_such_a_host_after_a_minute_a_few_at_once_and_serve_all_the_time(
    cluster: Cluster, trouble: str
) -> None:
    web = f"{trouble}/web"
    there = tasks_there(cluster, web)  # all three, where the minute has not passed yet
    leave_unix_s = (int(conditions(cluster)[FAILING]["since_unix_ms"]) + LEAVE_AFTER_MS) / 1000

    until(leave_unix_s - 1)
    still = tasks_there(cluster, web)
    assert still == there or time.time() > leave_unix_s, "what is over within a minute is not worth a move"

    def left() -> bool:
        assert len(cluster.serving(web)) >= REPLICAS
        tasks = cluster.tasks(web)
        begun = [task for task in tasks if not task["status"]["ready"]]
        assert len(begun) <= AT_ONCE_MAX
        return len(tasks) == REPLICAS and not begun and not tasks_there(cluster, web)

    cluster.wait(left, "no task is left there")
    assert FAILING in conditions(cluster)
    assert not tasks_there(cluster, f"{trouble}/more")
