"""What a client at 200 requests a second sees of a service of 8 tasks on 3 hosts: nothing of scaling, of updates and of
daemons that die; and of a data plane that somebody takes away by hand, for two seconds at most."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.system.cluster import Cluster, steady_load

RATE_PER_SECOND = 200
BACKENDS = 8
FEW = 3
RECOVERY_SECONDS_MAX = 2.0
WEB = """
name: {app}
services:
  web:
    image: shop-api:1
    init: true
    expose: ["8000"]
    stop_grace_period: 2s
    environment: {{ROUND: "{round}"}}
    deploy: {{replicas: {replicas}}}
"""


class Steady:
    """The service under load."""

    def __init__(self, cluster: Cluster, app: str) -> None:
        self.cluster, self.app, self.web = cluster, app, f"{app}/web"
        self.deploy("first")
        # static-web's server has a queue for 9 connections, which is full whenever it gets no processor for a moment.
        self.url = f"http://{cluster.vip(self.web)}:8000/healthz"

    def deploy(self, round: str) -> None:
        self.cluster.deploy(WEB.format(app=self.app, round=round, replicas=BACKENDS))

    def ids(self) -> set[str]:
        return {task["meta"]["id"] for task in self.cluster.tasks(self.web)}

    def scale(self, count: int) -> None:
        """Returns when there are so many tasks, all ready, and no other one is left."""
        self.cluster.fairway("scale", f"{self.web}={count}")
        self.cluster.wait(
            lambda: self.cluster.ready(self.web, count, "host-1") and len(self.ids()) == count, f"{count} tasks"
        )


@pytest.fixture(scope="module")
def steady(cluster: Cluster) -> Iterator[Steady]:
    app = f"steady-{cluster.lab.name}"
    yield Steady(cluster, app)
    cluster.remove(app)


def no_request_failed(result: dict[str, Any], of_at_least: int = RATE_PER_SECOND) -> None:
    assert result["failed"] == 0, f"{result['failed']} of {result['sent']} failed: {result['reasons']}"
    assert result["ok"] >= of_at_least


def test_scaling_down_and_up_fails_no_request(steady: Steady) -> None:
    with steady_load(steady.cluster, steady.url, rate=RATE_PER_SECOND) as finish:
        steady.scale(FEW)
        steady.scale(BACKENDS)
        result = finish()
    no_request_failed(result)


def test_replacing_all_tasks_fails_no_request(steady: Steady) -> None:
    before = steady.ids()
    with steady_load(steady.cluster, steady.url, rate=RATE_PER_SECOND) as finish:
        steady.deploy("second")
        result = finish()
    after = steady.ids()
    assert len(before) == len(after) == BACKENDS and before.isdisjoint(after)
    no_request_failed(result)


def test_killing_every_daemon_fails_no_request(steady: Steady) -> None:
    cluster = steady.cluster
    with steady_load(cluster, steady.url, rate=RATE_PER_SECOND) as finish:
        for host in cluster.lab.hosts():  # one of them leads
            for program in ("containerd", "fairwayd"):
                process = cluster.lab.restart_daemon(host, program)
                cluster.wait(
                    lambda host=host, program=program, process=process: (
                        cluster.lab.process_ids(host).get(program, process)  # type: ignore[misc]
                        != process
                    ),
                    f"{program} runs again on {host}",
                )
            cluster.wait(lambda host=host: bool(cluster.json("status", host=host)), f"{host} answers again")  # type: ignore[misc]
            cluster.wait(
                lambda host=host: all(v["node"]["state"] == "ready" for v in cluster.json("node", "ls", host=host)),  # type: ignore[misc]
                "all hosts are ready",
            )
        result = finish()
    no_request_failed(result)


def node_states(cluster: Cluster, host: str) -> dict[str, str]:
    """Of every host, as one of them says."""
    return {view["node"]["meta"]["name"]: view["node"]["state"] for view in cluster.json("node", "ls", host=host)}


def containers_on(cluster: Cluster, host: str) -> set[str]:
    listed = cluster.lab.run_in(host, ["ctr", "-n", "fairway", "tasks", "ls", "-q"], check=False)
    return set(listed.stdout.split())


def test_a_daemon_that_is_away_for_a_while_loses_no_task(steady: Steady) -> None:
    """For longer than a host may be silent, whose kernel answers."""
    cluster, hosts, leader = steady.cluster, steady.cluster.lab.hosts(), steady.cluster.leader()
    host = next(each for each in hosts if each != leader)
    before = {task["meta"]["id"] for task in cluster.tasks()}
    with steady_load(cluster, steady.url, rate=RATE_PER_SECOND) as finish:
        process = cluster.lab.restart_daemon(host, number=signal.SIGSTOP)
        try:
            cluster.wait(lambda: node_states(cluster, leader)[host] == "silent", f"{host} is not heard of")
        finally:
            os.kill(process, signal.SIGCONT)
        cluster.wait(lambda: set(node_states(cluster, leader).values()) == {"ready"}, "all hosts are ready")
        result = finish()
    no_request_failed(result)
    assert {task["meta"]["id"] for task in cluster.tasks()} == before


def test_a_daemon_that_stands_still_fails_no_request(steady: Steady) -> None:
    """The leader's, for longer than a restart may take: its tasks are replaced, and answer meanwhile what they were
    asked."""
    cluster, hosts, host = steady.cluster, steady.cluster.lab.hosts(), steady.cluster.leader()
    other = next(each for each in hosts if each != host)
    with steady_load(cluster, steady.url, rate=RATE_PER_SECOND) as finish:
        process = cluster.lab.restart_daemon(host, number=signal.SIGSTOP)
        try:
            cluster.wait(lambda: node_states(cluster, other)[host] == "down", f"{host} is not heard of")
            cluster.wait(lambda: cluster.ready(steady.web, BACKENDS, other), "its tasks are replaced")
        finally:
            os.kill(process, signal.SIGCONT)
        cluster.wait(lambda: set(node_states(cluster, other).values()) == {"ready"}, "all hosts are ready")
        cluster.wait(
            lambda: containers_on(cluster, host) <= {t["meta"]["id"] for t in cluster.tasks()}, "the old are gone"
        )
        result = finish()
    no_request_failed(result)


def table_handle(cluster: Cluster, host: str) -> int:
    """The number that the kernel gave to the table of ours; 0: there is none."""
    listed = json.loads(cluster.lab.run_in(host, ["nft", "-j", "list", "tables"]).stdout)["nftables"]
    return next(
        (int(each["table"]["handle"]) for each in listed if each.get("table", {}).get("name") == "fairway_fw"), 0
    )


def overlay_index(cluster: Cluster, host: str) -> int:
    """The number that the kernel gave to the VXLAN device; 0: there is none."""
    done = cluster.lab.run_in(host, ["ip", "-j", "link", "show", "type", "vxlan"])
    return next((int(each["ifindex"]) for each in json.loads(done.stdout or "[]")), 0)


def connections_made(cluster: Cluster, client: str) -> int:
    """TCP connections that were begun in a client's namespace."""
    names, numbers = [
        line.split()
        for line in cluster.lab.run_in(client, ["cat", "/proc/self/net/snmp"]).stdout.splitlines()
        if line.startswith("Tcp:")
    ]
    return int(numbers[names.index("ActiveOpens")])


@pytest.mark.parametrize(
    ("host", "damage", "kernel_object"),
    [
        pytest.param("host-2", "nft flush ruleset", table_handle, id="rules"),
        pytest.param("host-3", "ip link del fwx0", overlay_index, id="overlay"),
    ],
)
def test_what_is_taken_away_by_hand_is_back_within_two_seconds(
    steady: Steady, host: str, damage: str, kernel_object: Callable[[Cluster, str], int]
) -> None:
    """All requests come in by the damaged host, so that none of them gets by."""
    cluster = steady.cluster
    client = cluster.lab.client("narrow", via=[host])
    made, before = connections_made(cluster, client), kernel_object(cluster, host)
    assert before
    with steady_load(cluster, steady.url, client, rate=RATE_PER_SECOND, seconds=5) as finish:
        cluster.wait(lambda: connections_made(cluster, client) > made + RATE_PER_SECOND // 10, "requests are sent")
        cluster.lab.run_in(host, damage.split())
        damaged_unix_seconds = time.time()
        cluster.wait(lambda: kernel_object(cluster, host) not in (0, before), "it is there again")
        result = finish()
    words = f"{result['failed']} of {result['sent']} failed: {result['reasons']}"
    assert result["failing_span_seconds"] < RECOVERY_SECONDS_MAX, words
    assert result["longest_silence_seconds"] < RECOVERY_SECONDS_MAX, words
    until = result["started_unix_seconds"] + result["seconds"]
    assert until - damaged_unix_seconds > RECOVERY_SECONDS_MAX, "the load ended too soon to say"
