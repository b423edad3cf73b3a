"""Devices by CDI on real hosts: who gets which, what a container sees of them, and what is said where none is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.cluster import Cluster, run_in_task

FUSE, LOOP = "example.com/fuse", "example.com/loop"
HOSTS = ("host-1", "host-2", "host-3")
SERVICES = """
x-base: &base {image: static-web:1, stop_grace_period: 1s}
services:
  own:
    <<: *base
    x-fairway: {devices: [{kind: example.com/fuse, properties: {speed: high}}]}
  shared:
    <<: *base
    devices: [example.com/loop=loop0]
    deploy: {replicas: 2}
"""


def fuse(**more: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.7.0",
        "kind": FUSE,
        "annotations": {"speed": "high"},
        "devices": [{"name": "fuse", "containerEdits": {"deviceNodes": [{"path": "/dev/fuse"}]}}],
        **more,
    }


EDITS = {
    "env": ["FUSE=yes"],
    "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/etc/host-of-the-device", "options": ["ro", "bind"]}],
    "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "echo ran > /run/cdi-hook-ran"]}],
    "additionalGids": [777],
}
LOOPS = {
    "cdiVersion": "0.6.0",
    "kind": LOOP,
    "devices": [
        {
            "name": "loop0",
            "annotations": {"fairway.shared": "true"},
            "containerEdits": {"deviceNodes": [{"path": "/dev/loop0", "permissions": "r"}]},
        }
    ],
}


@pytest.fixture
def specify(cluster: Cluster) -> Iterator[Callable[[str, str, Any], None]]:
    """Writes a specification to a file of a host."""

    def write(host: str, path: str, said: Any) -> None:
        cluster.lab.run_in(
            host, ["sh", "-c", f"mkdir -p {path.rpartition('/')[0]}; cat > {path}"], input=json.dumps(said)
        )

    yield write
    for host in HOSTS:
        cluster.lab.run_in(host, ["rm", "-rf", "/etc/cdi", "/run/cdi", "/run/cdi-hook-ran"])
    cluster.wait(lambda: not any(_devices(cluster, host) for host in HOSTS), "no host has a device")


def _node(cluster: Cluster, host: str) -> dict[str, Any]:
    node: dict[str, Any] = cluster.json("node", "show", host)["node"]
    return node


def _devices(cluster: Cluster, host: str) -> list[str]:
    return [f"{each['kind']}={each['name']}" for each in _node(cluster, host)["description"].get("devices", ())]


def _opens(cluster: Cluster, task: str, path: str) -> bool:
    command = ["exec", task, "--", "sh", "-c", f"exec 3< {path}"]
    return cluster.fairway(*command, ok=False).returncode == 0


def test_a_device_is_one_tasks_own_and_another_is_shared(
    cluster: Cluster, specify: Callable[[str, str, Any], None], deployed: Callable[[str], str]
) -> None:
    specify("host-2", "/etc/cdi/fuse.json", fuse(containerEdits=EDITS))
    specify("host-3", "/run/cdi/loop.yaml", LOOPS)  # JSON is YAML, too
    cluster.wait(lambda: all(_devices(cluster, host) for host in HOSTS[1:]), "the hosts tell their devices")
    app = deployed(SERVICES)
    names = cluster.node_names()

    def hosts(service: str) -> list[str]:
        return sorted(names[task["node_id"]] for task in cluster.tasks(f"{app}/{service}") if task["node_id"])

    assert hosts("own") == ["host-2"] and hosts("shared") == ["host-3", "host-3"]

    own = f"{app}/own.1"
    seen = run_in_task(
        cluster, own, "sh", "-c", "echo $FUSE; cat /etc/host-of-the-device; id -G; exec 3<>/dev/fuse && echo open"
    )
    assert {"yes", "host-2", "777", "open"} <= set(seen.split())
    assert cluster.lab.run_in("host-2", ["cat", "/run/cdi-hook-ran"]).stdout == "ran\n"
    # What it was not given, it cannot open, also where it makes the file itself.
    run_in_task(cluster, own, "mknod", "/tmp/loop", "b", "7", "0")
    assert not _opens(cluster, own, "/tmp/loop")
    for slot in (1, 2):
        run_in_task(cluster, f"{app}/shared.{slot}", "sh", "-c", "exec 3< /dev/loop0")

    # A second task has to wait, and is told for whom; what comes later is found at once.
    cluster.fairway("scale", f"{app}/own=2")
    cluster.wait(lambda: bool(cluster.pending_reasons(f"{app}/own")), "the second task waits")
    (waiting,) = [task for task in cluster.json("why", f"{app}/own")["tasks"] if not task["node"]]
    against = {host["node"]: host["against"][0]["reason"] for host in waiting["hosts"]}
    held = f"does not have 1 {FUSE} with speed == high left, as tasks hold them: {FUSE}=fuse by {own}"
    assert against["host-2"] == held
    assert against["host-1"] == f"does not have 1 {FUSE} with speed == high"
    listed = cluster.fairway("node", "show", "host-2").stdout.splitlines()
    assert any(line.split() == [f"{FUSE}=fuse", "no", "speed=high", own] for line in listed)
    specify("host-1", "/etc/cdi/fuse.json", fuse())
    cluster.wait(lambda: hosts("own") == ["host-1", "host-2"], "the second task has a device of another host")
    assert _opens(cluster, f"{app}/own.2", "/dev/fuse")

    # A file that cannot be used costs itself alone, and is named.
    specify("host-1", "/etc/cdi/other.json", {"cdiVersion": "0.6.0", "kind": "example.com/other", "more": 1})
    cluster.wait(lambda: "/etc/cdi/other.json: " in str(_node(cluster, "host-1").get("conditions")), "it is told")
    assert _devices(cluster, "host-1") == [f"{FUSE}=fuse"]
