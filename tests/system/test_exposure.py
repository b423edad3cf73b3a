"""Where services are reached from outside and how connections are spread: host ports, dnsrr, floating addresses."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.system.cluster import Cluster, run_in_task
from tests.system.test_reaching import GET

Deploy = Callable[[str], str]
FLOATING = "10.99.0.200"
# 3 s of silence until a host counts as down, and what follows; perhaps an election before; on a machine with much to do
MOVE_SECONDS_MAX = 20.0
WHO = """
    image: static-web:1
    init: true
    stop_grace_period: 1s
    entrypoint: ["sh", "-c"]
    command:
      - |
        mkdir -p /tmp/www/cgi-bin
        cd /tmp/www/cgi-bin
        printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\n\\\\n"\\necho "$$REMOTE_ADDR $$HOSTNAME"\\n' > who
        chmod +x who
        export HOSTNAME
        exec httpd -f -p 8000 -h /tmp/www
"""


def ask(cluster: Cluster, address: str, port: int) -> tuple[str, str] | None:
    """(source that the task saw, the task's host name); None where nobody answers within a second."""
    url = f"http://{address}:{port}/cgi-bin/who"
    program = GET.replace("timeout=2", "timeout=1")
    done = cluster.lab.run_in("client", [sys.executable, "-c", program, url], check=False)
    if done.returncode != 0:
        return None
    source, name = done.stdout.split()
    return source.strip("[]").removeprefix("::ffff:"), name


def test_a_port_of_host_mode_is_open_where_a_task_is(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
services:
  who:{WHO}    ports: [{{target: 8000, published: 8093, mode: host}}]
    deploy: {{replicas: 2}}
""")
    names = cluster.node_names()
    tasks = {names[task["node_id"]]: task["meta"]["id"][:12] for task in cluster.tasks(f"{app}/who")}
    assert len(tasks) == 2
    client = cluster.lab.address("client")
    found: dict[str, tuple[str, str] | None] = {}

    def answer() -> bool:
        found.update({host: ask(cluster, cluster.lab.address(host), 8093) for host in cluster.lab.hosts()})
        return all(found[host] for host in tasks)

    cluster.wait(answer, "the hosts of its tasks answer")
    assert found == {host: (client, tasks[host]) if host in tasks else None for host in found}
    cluster.fairway("scale", f"{app}/who=4")
    words = "host-1, host-2 and host-3 have port 8093/tcp taken by another task"
    cluster.wait(lambda: words in cluster.pending_reasons(f"{app}/who"), "the fourth task says what it waits for")


def test_dnsrr_answers_the_addresses_of_tasks(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed("""
services:
  api: {image: "shop-api:1", expose: ["8000"], stop_grace_period: 1s, deploy: {endpoint_mode: dnsrr, replicas: 3}}
  asks: {image: "shop-api:1", expose: ["8000"], stop_grace_period: 1s}
""")
    assert not cluster.vip(f"{app}/api")
    wanted = {task["address"] for task in cluster.tasks(f"{app}/api")}
    program = "import socket; print(*{a[4][0] for a in socket.getaddrinfo('api', 8000, socket.AF_INET)})"
    cluster.wait(
        lambda: set(run_in_task(cluster, f"{app}/asks", "python3", "-c", program).split()) == wanted, "all are named"
    )


def test_turns_are_taken_through_the_whole_of_it(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed(f"""
services:
  who:{WHO}    ports: ["{cluster.lab.address("host-2")}:8094:8000"]
    deploy: {{replicas: 3}}
    x-fairway: {{balance: {{policy: round-robin}}}}
""")

    def turns() -> list[int]:
        return sorted(Counter(ask(cluster, cluster.lab.address("host-2"), 8094) for _ in range(6)).values())

    cluster.wait(lambda: turns() == [2, 2, 2], "each has its turns")
    assert ask(cluster, cluster.lab.address("host-1"), 8094) is None
    ids = {task["meta"]["id"] for task in cluster.tasks(f"{app}/who")}
    shown = cluster.fairway("show", f"{app}/who").stdout
    assert "round-robin" in shown
    path = cluster.folder / "compose.yaml"
    path.write_text(path.read_text().replace("round-robin", "source-hash"))
    assert "balancing round-robin -> source-hash" in cluster.fairway("plan", str(path)).stdout
    cluster.fairway("deploy", str(path))
    assert {task["meta"]["id"] for task in cluster.tasks(f"{app}/who")} == ids
    cluster.wait(
        lambda: len({ask(cluster, cluster.lab.address("host-2"), 8094) for _ in range(3)}) == 1,
        "one task for one client",
    )


def test_a_busy_task_gets_less_of_the_new_connections(cluster: Cluster, deployed: Deploy) -> None:
    app = deployed("""
services:
  web:
    image: static-web:1
    expose: ["8000"]
    stop_grace_period: 1s
    deploy: {replicas: 2}
    x-fairway: {balance: {policy: least-loaded}}
""")

    def weights() -> dict[str, int]:
        found = cluster.json("show", f"{app}/web")["endpoints"]
        return {one["address"]: int(one.get("weight", 0)) for one in found}

    busy, idle = sorted(weights())
    program = (
        "import socket, sys\n"
        "held = [socket.create_connection((sys.argv[1], 8000)) for _ in range(40)]\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, busy]
    with cluster.lab.popen("host-1", command, stdin=subprocess.PIPE):  # whose end lets go
        cluster.wait(lambda: 0 < weights()[busy] < weights()[idle], "the busy task weighs less")
    cluster.wait(lambda: weights()[busy] == weights()[idle] > 0, "both weigh the same again")


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.make_whole()


def holders(cluster: Cluster, last: str = "") -> list[str]:
    """Hosts that have the floating address, as their kernels say one after the other. Where only `last` can lose it
    meanwhile, two of them have it at the same moment."""
    found = []
    for host in sorted(cluster.lab.hosts(), key=lambda name: name == last):
        if cluster.lab.is_on(host):
            listed = cluster.lab.run_in(host, ["ip", "-o", "-4", "addr"]).stdout
            found += [host] if f" {FLOATING}/32 " in listed else []
    return found


def test_a_floating_address_moves_with_a_healthy_host(deployed: Deploy, whole: Cluster) -> None:
    app = deployed(f"""
services:
  who:{WHO}    ports: ["8095:8000"]
    deploy: {{replicas: 3}}
    x-fairway: {{floating_addresses: [{FLOATING}]}}
""")
    client = whole.lab.address("client")
    whole.wait(lambda: len(holders(whole)) == 1, "one host holds the address")
    whole.wait(lambda: (ask(whole, FLOATING, 8095) or ("", ""))[0] == client, "it answers, and sees the client")
    (first,) = holders(whole)
    whole.lab.kill(first)
    left = next(host for host in whole.lab.hosts() if host != first)
    gone = whole.wait(lambda: ask(whole, FLOATING, 8095) is not None, "another host answers")
    assert gone < MOVE_SECONDS_MAX
    assert first not in holders(whole)
    whole.lab.start(first)
    whole.wait(lambda: whole.ready(f"{app}/who", 3, left), "all tasks are ready")
    # A host that is cut off gives it up by itself, before another has it.
    whole.wait(lambda: len(holders(whole)) == 1, "one host holds the address")
    (second,) = holders(whole)
    if second == whole.leader(left):
        return
    whole.lab.partition([second])
    seen: list[list[str]] = []

    def moved() -> bool:
        seen.append(holders(whole, last=second))
        return bool(seen[-1]) and second not in seen[-1]

    whole.wait(moved, "the address has left the host that is cut off")
    assert all(len(each) <= 1 for each in seen), seen
