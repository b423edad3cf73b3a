"""Hands on what runs: restart, stop and signal a task through any host, and look at all that is kept of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.cluster import ROOT, Cluster, run_in_task

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
    cluster.wait(lambda: cluster.fairway("logs", f"{app}/box").stdout.count("up") == 2, "both have set their traps")
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
    found: list[dict[str, Any]] = []

    def used() -> bool:
        """Whether both got a processor between the two looks, which a busy machine does not promise."""
        found[:] = cluster.json("stats", app, "--no-stream", host="host-2")
        return all((each["cpu_percent"] or 0) > 0 for each in found)

    cluster.wait(used, "both use a processor")
    assert [each["name"] for each in found] == [f"{app}/box.1", f"{app}/box.2"]
    assert {each["node"] for each in found} <= {"host-1", "host-2", "host-3"}
    assert all(each["memory_bytes"] > 0 and each["processes"] >= 1 for each in found)
    assert all(each["cpu_ns"] > 0 for each in found)
    first = cluster.json("top", f"{app}/box.2", host="host-3")[0]
    assert first["id"] == 1 and first["user"] == "root" and "trap" in first["command"]
    assert "there is no task or service" in cluster.fairway("stats", "nope", "--no-stream", ok=False).stderr


def test_files_are_copied_through_any_host_and_a_killed_client_leaves_nothing(
    cluster: Cluster, deployed: Deploy, tmp_path: Path
) -> None:
    app = deployed(TRAPPER)
    task = f"{app}/box.2"
    (tmp_path / "site" / "deep").mkdir(parents=True)
    (tmp_path / "site" / "deep" / "big").write_bytes(os.urandom(5_000_000))
    for host in ("host-2", "host-3"):
        cluster.fairway("cp", str(tmp_path / "site"), f"{task}:/tmp", host=host)
        cluster.fairway("cp", f"{task}:/tmp/site/.", str(tmp_path / host), host=host)
        content = (tmp_path / host / "deep" / "big").read_bytes()
        assert content == (tmp_path / "site" / "deep" / "big").read_bytes()

    node = cluster.node_names()[cluster.json("inspect", "task", task)[0]["node_id"]]
    before = open_files(cluster, node)
    command = [sys.executable, "-m", "cli.main", "cp", "-q"]
    environment = dict(os.environ, FAIRWAY_SOCKET=str(cluster.lab.socket("host-2")))
    for arguments in (["-", f"{task}:/tmp"], [f"{task}:/", "-"]):
        client = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT
        )
        assert client.stdin is not None and client.stdout is not None
        if arguments[0] == "-":
            entry = tarfile.TarInfo("half")
            entry.size = 10_000_000
            client.stdin.write(entry.tobuf() + bytes(1_000_000))
            client.stdin.flush()
            cluster.wait(lambda: ".fairway-" in run_in_task(cluster, task, "ls", "-A", "/tmp"), "the copy has begun")
        else:
            client.stdout.read(100_000)  # and no more: the rest waits at the host
        client.kill()
        client.wait()
        client.stdin.close()
        client.stdout.close()
    cluster.wait(lambda: run_in_task(cluster, task, "ls", "-A", "/tmp") == "site\n", "nothing of it is left")
    cluster.wait(lambda: open_files(cluster, node) <= before, f"{node} has let go of all but {before}")
    failed = cluster.fairway("cp", f"{task}:/nope", "-", ok=False)
    assert (failed.returncode, "no such file or folder" in failed.stderr) == (1, True)


FORWARDED = """
services:
  web:
    image: static-web:1
    command: ["sh", "-c", "echo here > /tmp/name; httpd -p 127.0.0.1:7777 -h /tmp; exec nc -ll -p 7778 -e cat"]
    init: true
    stop_grace_period: 1s
    expose: ["7778"]
"""


def test_ports_that_listen_on_loopback_alone_are_reached_through_any_host(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(FORWARDED)
    host = cluster.node_names()[cluster.json("inspect", "task", f"{app}/web.1")[0]["node_id"]]
    asked = next(name for name in ("host-2", "host-3") if name != host)
    client = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "port-forward", f"{app}/web", ":7777", ":7778", ":1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, FAIRWAY_SOCKET=str(cluster.lab.socket(asked))),
        cwd=ROOT,
        text=True,
    )
    try:
        assert client.stdout is not None and client.stderr is not None
        loopback, own, closed = (int(client.stdout.readline().split(" -> ")[0].rpartition(":")[2]) for _ in range(3))
        with urllib.request.urlopen(f"http://127.0.0.1:{loopback}/name", timeout=30) as page:
            assert page.read() == b"here\n"
        content = os.urandom(2_000_000)
        with socket.create_connection(("127.0.0.1", own), timeout=30) as connection:
            sender = threading.Thread(target=send_and_end, args=(connection, content))
            sender.start()
            with connection.makefile("rb") as answer:
                assert answer.read() == content
            sender.join()
        with socket.create_connection(("127.0.0.1", closed), timeout=30) as connection:
            assert connection.recv(1) == b""
        assert "port 1 of the task takes no connection (127.0.0.1: connection refused" in client.stderr.readline()
        with socket.create_connection(("127.0.0.1", own), timeout=30) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            client.kill()
            cluster.wait(lambda: not sockets_in_task(cluster, f"{app}/web.1"), "nothing is connected to the task")
    finally:
        client.kill()
        client.communicate()


def send_and_end(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def sockets_in_task(cluster: Cluster, task: str) -> list[str]:
    """Established connections in a task's network namespace, by their ports."""
    lines = run_in_task(cluster, task, "cat", "/proc/net/tcp").splitlines()[1:]
    return sorted(line.split()[1] for line in lines if line.split()[3] == "01")


def open_files(cluster: Cluster, host: str) -> int:
    """How many files and folders the host's fairwayd holds open."""
    count = 0
    for descriptor in Path(f"/proc/{cluster.lab.process_ids(host)['fairwayd']}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("/")
    return count
