"""The rest of the workload model on real hosts: keys of containers, rollouts by hand, jobs, load, hosts in trouble."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cli.failure import EXIT_PAUSED, EXIT_ROLLED_BACK
from tests.system.cluster import Cluster, run_in_task

Deploy = Callable[[str], str]
BASE = 'x-base: &base {image: "static-web:1", init: true, stop_grace_period: 1s}\n'
# A server of the gRPC health protocol with nothing but a socket: one connection is one question.
GRPC_HEALTH = """
import os, socket, struct
def frame(kind, flags, stream, data=b""):
    return struct.pack(">I", len(data))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + data
def field(name, value):
    return b"\\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
def answer(conn):
    stream = conn.makefile("rb")
    stream.read(24)
    conn.sendall(frame(4, 0, 0) + frame(4, 1, 0))
    while True:
        head = stream.read(9)
        stream.read(int.from_bytes(head[:3], "big"))
        if head[3] == 0:
            break
    number = int.from_bytes(head[5:], "big")
    state = b"\\x08\\x02" if os.path.exists("/tmp/down") else b"\\x08\\x01"
    conn.sendall(frame(1, 4, number, b"\\x88" + field(b"content-type", b"application/grpc")))
    conn.sendall(frame(0, 0, number, b"\\x00" + struct.pack(">I", 2) + state))
    conn.sendall(frame(1, 5, number, field(b"grpc-status", b"0")))
    stream.read(1)
with socket.create_server(("", 9000)) as server:
    while True:
        conn, _ = server.accept()
        conn.settimeout(3)
        try:
            answer(conn)
        except (OSError, IndexError):
            pass
        conn.close()
"""


def outcome(done: Any, code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def test_keys_of_a_container_that_only_its_inside_shows(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
{BASE}
configs: {{health: {{content: {json.dumps(GRPC_HEALTH)}}}}}
services:
  box:
    <<: *base
    pids_limit: 40
    cap_drop: [ALL]
    cap_add: [NET_ADMIN]
    annotations: {{org.example.team: shop}}
    healthcheck: {{test: "test -e /tmp/seen || touch /tmp/seen", interval: 200ms}}
    deploy: {{replicas: 1}}
  plain:
    <<: *base
    healthcheck: {{disable: true}}
  health:
    <<: *base
    image: shop-api:1
    command: [python3, /health]
    configs: [health]
    deploy: {{replicas: 2}}
    x-fairway: {{probes: {{ready: {{grpc: {{port: 9000}}, interval: 200ms}}}}}}
  foreign: {{<<: *base, platform: linux/s390x, deploy: {{replicas: 0}}}}
  graphics: {{<<: *base, gpus: 2, deploy: {{replicas: 0}}}}
""")
    box = f"{app}/box"
    assert "CapEff:\t0000000000001000" in run_in_task(cluster, box, "cat", "/proc/1/status")
    forked = cluster.fairway("exec", box, "--", "sh", "-c", "for i in $(seq 60); do sleep 3 & done", ok=False)
    assert "fork" in forked.stderr
    seen = ("exec", box, "--", "test", "-e", "/tmp/seen")
    cluster.wait(lambda: cluster.fairway(*seen, ok=False).returncode == 0, "there is room for a process again")
    assert cluster.serving(f"{app}/plain") and len(cluster.serving(f"{app}/health")) == 2
    run_in_task(cluster, f"{app}/health.1", "touch", "/tmp/down")
    cluster.wait(lambda: len(cluster.serving(f"{app}/health")) == 1, "one says that it does not serve")
    (task,) = cluster.tasks(box)
    host = cluster.node_names()[task["node_id"]]
    kept = cluster.lab.run_in(host, ["ctr", "-n", "fairway", "containers", "info", task["meta"]["id"]]).stdout
    assert json.loads(kept)["Spec"]["annotations"]["org.example.team"] == "shop"
    cluster.fairway("scale", f"{app}/foreign=1", f"{app}/graphics=1")
    cluster.wait(lambda: "s390x" in cluster.pending_reasons(f"{app}/foreign"), "no host has that architecture")
    cluster.wait(lambda: "nvidia.com/gpu" in cluster.pending_reasons(f"{app}/graphics"), "no host has such devices")


ROLLED = """
services:
  web:
    image: static-web:1
    stop_grace_period: 0s
    environment: {{ROUND: "{round}"}}
    command: ["sh", "-c", "{command}"]
    deploy:
      replicas: 2
      update_config: {{order: stop-first, parallelism: 0, {update}}}
      rollback_config: {{parallelism: 0, order: start-first}}
    x-fairway: {{rollout: {rollout}}}
"""


def test_rollouts_that_fail_late_or_are_held_and_undone_by_hand(cluster: Cluster, deployed: Deploy) -> None:
    def text(round: int, command: str, update: str, rollout: str = "{}") -> str:
        return ROLLED.format(round=round, command=command, update=update, rollout=rollout)

    def rounds() -> list[str]:
        tasks = [task for task in cluster.tasks(web) if task["status"]["state"] == "running"]
        return sorted(task["spec"]["container"]["environment"]["ROUND"] for task in tasks)

    app = deployed(text(1, "exec sleep 100000", "failure_action: pause"))
    web = f"{app}/web"
    # Stop first, all at once; both are ready for a moment and fail while the update is still watched.
    late = text(2, "sleep 0.7; exit 3", "failure_action: rollback, monitor: 2s, max_failure_ratio: 0.5")
    outcome(cluster.deploy(f"name: {app}\n{late}", ok=False), EXIT_ROLLED_BACK)
    cluster.wait(lambda: rounds() == ["1", "1"], "what was new has ended")
    canary = "{strategy: canary, steps: [{tasks: 1, wait: by hand}]}"
    held = text(3, "exec sleep 100000", "failure_action: pause", canary)
    outcome(cluster.deploy(f"name: {app}\n{held}", ok=False), EXIT_PAUSED)
    cluster.wait(lambda: rounds() == ["1", "3"], "one of the old has ended")
    cluster.fairway("service", "pause", web)
    assert "paused" in cluster.fairway("show", web).stdout
    cluster.fairway("service", "resume", web, "--detach")
    cluster.fairway("service", "abort", web)
    cluster.wait(lambda: rounds() == ["1", "1"], "the canary has ended")


def test_jobs_of_every_host_and_with_a_deadline(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
{BASE}
services:
  each:
    <<: *base
    command: ["hostname"]
    hostname: "of-it"
    deploy: {{mode: global-job}}
""")
    (run,) = cluster.json("show", f"{app}/each")["service"]["runs"]
    assert (run["outcome"], run["succeeded"]) == ("succeeded", 3)
    assert len({task["node_id"] for task in cluster.json("ps", f"{app}/each", "-a")}) == 3
    late = f"""name: {app}
{BASE}
services:
  late:
    <<: *base
    command: ["sleep", "1000"]
    deploy: {{mode: replicated-job}}
    x-fairway: {{job: {{deadline: 1s}}}}
  once:
    <<: *base
    command: ["sh", "-c", "exit 4"]
    deploy: {{restart_policy: {{condition: none}}}}
  again:
    <<: *base
    command: ["sh", "-c", "exit 5"]
    deploy: {{restart_policy: {{condition: on-failure, delay: 100ms, max_attempts: 2, window: 1m}}}}
"""
    path = cluster.folder / "late.yaml"
    path.write_text(late)
    cluster.fairway("deploy", str(path), "--detach")
    cluster.wait(lambda: "deadline" in cluster.fairway("show", f"{app}/late").stdout, "it took too long")
    cluster.wait(lambda: len(cluster.json("ps", f"{app}/again", "-a")) == 3, "two more tries")
    cluster.wait(lambda: "failed (5)" in cluster.fairway("ps", f"{app}/again").stdout, "and no other")
    assert len(cluster.json("ps", f"{app}/once", "-a")) == 1


def test_tasks_lie_close_where_that_is_liked_and_a_job_keeps_so_many_runs(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
{BASE}
services:
  shop: {{<<: *base}}
  packed:
    <<: *base
    deploy: {{replicas: 3, resources: {{reservations: {{memory: 8M}}}}}}
    x-fairway: {{placement: {{strategy: pack}}}}
  fond:
    <<: *base
    depends_on: [shop]
    deploy: {{replicas: 2}}
    x-fairway: {{placement: {{affinity: [{{service: shop}}]}}}}
  job:
    <<: *base
    command: ["true"]
    deploy: {{mode: replicated-job}}
    x-fairway: {{job: {{keep: 2}}}}
""")

    def hosts(service: str) -> set[str]:
        return {str(task["node_id"]) for task in cluster.tasks(f"{app}/{service}")}

    def runs() -> list[tuple[int, str]]:
        kept = cluster.json("show", f"{app}/job")["service"]["runs"]
        return [(int(run["number"]), run["outcome"]) for run in kept]

    assert len(hosts("packed")) == 1
    assert hosts("fond") == hosts("shop")
    for number in (2, 3):
        cluster.fairway("trigger", f"{app}/job")
        cluster.wait(lambda number=number: runs()[-1] == (number, "succeeded"), "it has run")  # type: ignore[misc]
    assert [number for number, _ in runs()] == [2, 3]


READ_ONLY = "read-only file system"
VOLUMES = "/var/lib/fairway/volumes"
WIDE = f"{BASE}services:\n  web: {{<<: *base, deploy: {{replicas: 3}}}}\n"


@pytest.fixture
def read_only(cluster: Cluster) -> Iterator[None]:
    """host-3 cannot write to its folder of volumes."""
    mount = [
        "sh",
        "-c",
        f"mkdir -p {VOLUMES} && mount --bind {VOLUMES} {VOLUMES} && mount -o remount,ro,bind {VOLUMES}",
    ]
    cluster.lab.run_in("host-3", mount)
    yield
    cluster.lab.run_in("host-3", ["umount", VOLUMES], check=False)
    cluster.wait(lambda: READ_ONLY not in conditions(cluster, "host-3"), "host-3 is well again")


def conditions(cluster: Cluster, host: str) -> list[str]:
    return [each["kind"] for each in cluster.json("node", "show", host)["node"].get("conditions", ())]


def test_a_host_in_trouble_says_so_and_gets_nothing_new_until_it_is_over(
    cluster: Cluster, deployed: Deploy, read_only: None
) -> None:
    cluster.wait(lambda: READ_ONLY in conditions(cluster, "host-3"), "host-3 says what is wrong")
    app = deployed(WIDE)
    names = cluster.node_names()

    def hosts() -> set[str]:
        return {names[task["node_id"]] for task in cluster.tasks(f"{app}/web") if task["node_id"]}

    assert hosts() == {"host-1", "host-2"}
    assert READ_ONLY in cluster.fairway("node", "ls").stdout
    assert "cannot be written to" in cluster.fairway("doctor", ok=False).stdout
    bound = WIDE.replace("replicas: 3", "replicas: 3, placement: {max_replicas_per_node: 1}")
    path = cluster.folder / "bound.yaml"
    path.write_text(f"name: {app}\n{bound}")
    cluster.fairway("deploy", str(path), "--detach")
    cluster.wait(lambda: READ_ONLY in cluster.pending_reasons(f"{app}/web"), "one waits for host-3")
    cluster.lab.run_in("host-3", ["umount", VOLUMES])
    cluster.wait(lambda: hosts() == set(cluster.lab.hosts()), "it is over, and host-3 has a task")
