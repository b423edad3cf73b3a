"""What an operator does day by day: look in, follow, place, restart daemons, take away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.system.cluster import ROOT, Cluster, run_in_task

Deploy = Callable[[str], str]
WEB = """
    image: static-web:1
    init: true
    stop_grace_period: 1s
    expose: ["8000"]
"""
SLEEPER = """
    image: static-web:1
    command: ["sh", "-c", "echo up in $$ROUND; exec sleep 100000"]
    environment: {ROUND: "%s"}
    init: true
    stop_grace_period: 1s
"""


@pytest.fixture
def followed(cluster: Cluster) -> Iterator[Callable[..., list[str]]]:
    """Starts a command that follows something; its lines so far are in the list that this returns."""
    processes: list[subprocess.Popen[str]] = []

    def follow(*arguments: str) -> list[str]:
        environment = dict(os.environ, FAIRWAY_SOCKET=str(cluster.lab.socket("host-1")), PYTHONUNBUFFERED="1")
        command = [sys.executable, "-m", "cli.main", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True)
        processes.append(process)
        lines: list[str] = []
        assert process.stdout is not None
        threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True).start()
        return lines

    yield follow
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_logs_and_events_are_followed_across_a_replacement(
    cluster: Cluster, deployed: Deploy, followed: Callable[..., list[str]]
) -> None:
    app = deployed("services:\n  box:" + SLEEPER % "one")
    logs = followed("logs", "-f", f"{app}/box")
    events = followed("events", "-f", "--app", app)
    cluster.wait(lambda: any("up in one" in line for line in logs), "the log is there")
    path = cluster.folder / "compose.yaml"
    path.write_text(f"name: {app}\nservices:\n  box:" + SLEEPER % "two")
    cluster.fairway("deploy", str(path))
    cluster.wait(lambda: any("up in two" in line for line in logs), "the log goes on with the next task")
    cluster.wait(lambda: any("running" in line and "box.1" in line for line in events), "its start is an event")
    assert sum("up in two" in line for line in logs) == 1
    past = cluster.fairway("events", "--app", app).stdout
    assert "box" in past
    assert "up in two" in cluster.fairway("logs", "--tail", "1", f"{app}/box").stdout.splitlines()[-1]


def test_labels_cordons_and_constraints_place_tasks(cluster: Cluster, deployed: Deploy) -> None:
    cluster.fairway("node", "label", "host-2", "disk=ssd")
    try:
        app = deployed(
            f"services:\n  web:{WEB}"
            "    deploy: {replicas: 2, placement: {constraints: ['node.labels.disk == ssd']}}\n"
        )
        names = cluster.node_names()
        assert {names[task["node_id"]] for task in cluster.tasks(f"{app}/web")} == {"host-2"}
        cluster.fairway("node", "cordon", "host-2")
        cluster.fairway("scale", f"{app}/web=3")
        cluster.wait(lambda: "cordoned" in cluster.pending_reasons(f"{app}/web"), "the reason is the cordon")
        assert cluster.ready(f"{app}/web", 2, "host-1")
        cluster.fairway("node", "activate", "host-2")
        cluster.wait(lambda: cluster.ready(f"{app}/web", 3, "host-1"), "the third runs")
    finally:
        cluster.fairway("node", "activate", "host-2")
        cluster.fairway("node", "label", "host-2", "disk-")


def left_on(cluster: Cluster, host: str) -> str:
    """Containers, task interfaces, namespaces and files of tasks on a host."""
    commands = (
        "ctr -n fairway containers ls -q; ctr -n fairway snapshots ls | grep -v '^KEY' | grep -i active;"
        "ip -o link | grep -o 'fwt[^:@]*'; ls /run/fairway/tasks /run/fairway/netns 2>/dev/null;"
        "ls /var/lib/fairway/volumes 2>/dev/null; true"
    )
    words = cluster.lab.run_in(host, ["sh", "-c", commands]).stdout.split()
    return " ".join(word for word in words if not word.startswith("/run/"))


def leases(cluster: Cluster) -> str:
    """Addresses and published ports that are taken, as the state on disk of host-1 has them."""
    query = "select name from leases where name like 'address/%' or name like 'port/%' or name like 'vip/%'"
    command = ["sqlite3", "-readonly", "-cmd", ".timeout 10000", "/var/lib/fairway/raft/cluster.sqlite", query]
    return cluster.lab.run_in("host-1", command).stdout


def test_what_is_removed_leaves_nothing(cluster: Cluster, deployed: Deploy) -> None:
    cluster.wait(lambda: not cluster.json("ls"), "no other test has left its app")
    app = deployed(f"""
services:
  web:{WEB}    ports: ["8091:8000"]
    volumes: ["data:/data", "/anonymous"]
    deploy: {{replicas: 1}}
  more:{WEB}    deploy: {{replicas: 5}}
volumes: {{data: {{}}}}
""")
    cluster.wait(lambda: "port/tcp/8091" in leases(cluster), "its port is leased")
    cluster.remove(app)
    for host in cluster.lab.hosts():
        cluster.wait(lambda host=host: left_on(cluster, host) == "", f"nothing is left on {host}")  # type: ignore[misc]
    cluster.wait(lambda: leases(cluster) == "", "no lease is left")


def test_containers_outlive_containerd_and_are_adopted(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"services:\n  web:{WEB}    deploy: {{replicas: 3}}\n")
    before = {task["meta"]["id"]: task["status"]["pid"] for task in cluster.tasks(f"{app}/web")}
    victim = cluster.tasks(f"{app}/web")[0]
    host = cluster.node_names()[victim["node_id"]]
    cluster.lab.restart_daemon(host, "containerd")
    task = victim["meta"]["id"]
    cluster.wait(lambda: run_in_task(cluster, task, "echo", "back") == "back\n", "exec works again")
    cluster.wait(lambda: cluster.ready(f"{app}/web", 3, "host-1"), "all are ready")
    assert {task["meta"]["id"]: task["status"]["pid"] for task in cluster.tasks(f"{app}/web")} == before
    cluster.fairway("scale", f"{app}/web=6")
    cluster.wait(lambda: cluster.ready(f"{app}/web", 6, "host-1"), "new tasks start there too")


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_a_daemon_killed_during_a_deploy_changes_nothing(cluster: Cluster, deployed: Deploy, which: str) -> None:
    leader = cluster.leader()
    host = leader if which == "leader" else next(name for name in cluster.lab.hosts() if name != leader)
    asked = next(name for name in cluster.lab.hosts() if name != host)
    path = cluster.folder / "compose.yaml"
    app = deployed(f"services:\n  web:{WEB}")
    path.write_text(f"name: {app}\nservices:\n  web:{WEB}    environment: {{A: b}}\n    deploy: {{replicas: 6}}\n")
    environment = dict(os.environ, FAIRWAY_SOCKET=str(cluster.lab.socket(asked)), PYTHONUNBUFFERED="1")
    command = [sys.executable, "-m", "cli.main", "deploy", str(path), "--timeout", "60s"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as going:
        assert going.stdout is not None
        assert going.stdout.readline().startswith(b"Deploying")
        cluster.wait(lambda: len(cluster.tasks(f"{app}/web", host=asked)) > 1, "it has begun")
        cluster.lab.restart_daemon(host)
        output, errors = going.communicate(timeout=90)
    assert going.returncode == 0, (output + errors).decode()
    cluster.wait(lambda: cluster.ready(f"{app}/web", 6, asked), "all six are there")
    cluster.make_whole()


def test_an_app_can_be_deployed_again_while_it_is_removed(cluster: Cluster, deployed: Deploy) -> None:
    text = f"services:\n  web:{WEB}    deploy: {{replicas: 3}}\n"
    app = deployed(text)
    before = {task["meta"]["id"] for task in cluster.tasks(f"{app}/web")}
    cluster.fairway("rm", app)
    path = cluster.folder / "compose.yaml"
    path.write_text(f"name: {app}\n{text}")
    cluster.fairway("deploy", str(path))
    assert cluster.ready(f"{app}/web", 3, "host-1")
    assert before.isdisjoint(task["meta"]["id"] for task in cluster.tasks(f"{app}/web"))
