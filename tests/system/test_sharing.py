"""A service whose tasks see the processes and the IPC of another one's, on every slot, whatever becomes of that one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.system.cluster import Cluster, run_in_task

Pairs = dict[int, tuple[dict[str, Any], dict[str, Any]]]
OWNER = (
    "trap 'echo told > /dev/shm/told' USR1; trap 'exit 3' USR2; echo $$HOSTNAME > /dev/shm/owner;"
    "while :; do sleep 0.05; done"
)
# The owner answers its signal by a file in the /dev/shm of both.
LOOKS = (
    "ps; kill -USR1 1; until [ -f /dev/shm/told ]; do sleep 0.05; done;"
    "cat /dev/shm/owner; for i in self 1; do readlink /proc/$i/ns/ipc; done"
)
SERVICES = f"""
services:
  owner:
    image: static-web:1
    command: ["sh", "-c", "{OWNER}"]
    environment: [VERSION=1]
    ipc: shareable
    stop_grace_period: 0s
    deploy: {{replicas: 2, update_config: {{parallelism: 2}}}}
  side:
    image: static-web:1
    command: sleep 100000
    pid: service:owner
    ipc: service:owner
    stop_grace_period: 0s
    deploy: {{replicas: 2, update_config: {{parallelism: 2}}}}
"""


def pairs(cluster: Cluster, app: str) -> Pairs:
    """By slot the ready tasks of both services, where they are two on one host that share."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for service in ("owner", "side"):
        tasks = cluster.tasks(f"{app}/{service}")
        if len(tasks) != 2:
            return {}
        found[service] = {task["slot"]: task for task in tasks if task["status"]["ready"]}
    owners, sides = found["owner"], found["side"]
    together = {slot: (owners[slot], sides[slot]) for slot in owners if slot in sides}
    return {
        slot: (owner, side)
        for slot, (owner, side) in together.items()
        if side["shares_with"] == owner["meta"]["id"] and side["node_id"] == owner["node_id"]
    }


def test_processes_signals_and_memory_are_shared_and_both_are_replaced_together(
    cluster: Cluster, deployed: Callable[[str], str]
) -> None:
    app = deployed(SERVICES)

    def check_shared(slot: int) -> None:
        owner, _ = pairs(cluster, app)[slot]
        told = run_in_task(cluster, f"{app}/side.{slot}", "sh", "-c", LOOKS)
        assert "trap" in told, "the owner's shell is among its processes"
        *_, name, own_ipc, ipc = told.split()
        assert (name, own_ipc) == (owner["meta"]["id"][:12], ipc)

    def replaced(before: Pairs, slot: int) -> bool:
        now = ids(pairs(cluster, app), slot)
        return len(now) == 2 and not set(now) & set(ids(before, slot))

    cluster.wait(lambda: len(pairs(cluster, app)) == 2, "both slots share")
    first = pairs(cluster, app)
    check_shared(1)
    run_in_task(cluster, f"{app}/side.1", "sh", "-c", "kill -USR2 1")
    cluster.wait(lambda: replaced(first, 1), "both are replaced, and share")
    assert ids(pairs(cluster, app), 2) == ids(first, 2), "the other slot is let alone"
    check_shared(1)

    path = cluster.folder / "sharing.yaml"
    path.write_text(f"name: {app}\n{SERVICES.replace('VERSION=1', 'VERSION=2')}")
    second = pairs(cluster, app)
    cluster.fairway("deploy", str(path), "--timeout", "60s")
    cluster.wait(lambda: replaced(second, 1) and replaced(second, 2), "an update takes all of them along")
    check_shared(2)


def ids(found: Pairs, slot: int) -> list[str]:
    return [task["meta"]["id"] for task in found.get(slot, ())]
