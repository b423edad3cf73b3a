"""A host's address changes while its daemon runs: the overlay carries traffic again within two seconds, and consensus
and sessions follow, whatever part the host has."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.layout import SWITCH_ADDRESS
from tests.system.cluster import Cluster

TRIES_MAX = 3
GAP_SECONDS_MAX = 2.0
SERVICE = """
  on-{host}: {{image: "static-web:1", expose: ["8000"], stop_grace_period: 1s,
    deploy: {{placement: {{constraints: ["node.hostname == {host}"]}}}}}}
"""
# Prints when it had an answer, by the clock and by what it has spent on probing: a turn takes no longer than its waits
# but where the process gets no processor, which is no gap in the traffic.
PROBE = """
import socket, sys, time
probed, last = 0.0, time.monotonic()
while True:
    now = time.monotonic()
    probed, last = probed + min(now - last, 0.2), now
    with socket.socket() as probing:
        probing.settimeout(0.1)
        try:
            probing.connect((sys.argv[1], 8000))
            print(time.monotonic(), probed, flush=True)
        except OSError:
            pass
    time.sleep(0.02)
"""


@contextlib.contextmanager
def probing(cluster: Cluster, source: str, address: str) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """Connects to a task again and again from a host; the yielded function gives both times of each answer."""
    with tempfile.NamedTemporaryFile() as output:
        process = cluster.lab.popen(source, [sys.executable, "-c", PROBE, address], stdout=output)
        try:

            def answers() -> list[tuple[float, float]]:
                pairs = (line.split() for line in Path(output.name).read_text().split("\n")[:-1])
                return [(float(at), float(probed)) for at, probed in pairs]

            yield answers
        finally:
            process.kill()
            process.wait()


def gap_seconds(answers: list[tuple[float, float]]) -> float:
    """The longest time of probing without an answer."""
    return max(later - earlier for (_, earlier), (_, later) in itertools.pairwise(answers))


def change_address(cluster: Cluster, host: str, old: str, new: str) -> subprocess.CompletedProcess[str]:
    """As somebody does it by hand: the old one is removed, with which the routes go, the new one is added."""
    shown = cluster.lab.run_in(host, ["ip", "-br", "address"]).stdout
    link = next(line.split()[0] for line in shown.splitlines() if f" {old}/" in line).partition("@")[0]
    change = f"ip address del {old}/24 dev {link} && ip address add {new}/24 dev {link} && "
    return cluster.lab.run_in(host, ["sh", "-c", f"{change} ip route replace default via {SWITCH_ADDRESS}"])


def node_address(cluster: Cluster, host: str, seen_by: str) -> str:
    nodes = [view["node"] for view in cluster.json("node", "ls", host=seen_by)]
    return str(next(node["address"] for node in nodes if node["meta"]["name"] == host))


def voter_address(cluster: Cluster, host: str, seen_by: str) -> str:
    members = cluster.json("raft", "status", host=seen_by)["members"]
    return str(next(member["address"] for member in members if member["name"] == host))


def moves(cluster: Cluster, host: str, old: str, new: str, tasks: dict[str, str]) -> list[float]:
    """Changes the address under traffic; the longest times without an answer, of the host and of the others."""
    other, third = [name for name in cluster.lab.hosts() if name != host][:2]
    with (
        probing(cluster, host, tasks[other]) as outward,
        probing(cluster, other, tasks[host]) as inward,
        probing(cluster, third, tasks[host]) as also_inward,
    ):
        ways = (outward, inward, also_inward)
        cluster.wait(lambda: all(len(answers()) > 10 for answers in ways), "traffic flows")
        change_address(cluster, host, old, new)
        changed = time.monotonic()
        cluster.wait(lambda: node_address(cluster, host, other) == new, "the cluster knows the new address")
        cluster.wait(
            lambda: all(answers()[-1][0] > changed + GAP_SECONDS_MAX for answers in ways), "traffic flows all the time"
        )
        return [gap_seconds(answers()) for answers in ways]


@pytest.mark.parametrize("part", ["follower", "leader"])
def test_traffic_over_the_overlay_flows_again_within_two_seconds(
    cluster: Cluster, deployed: Callable[[str], str], part: str
) -> None:
    app = deployed("services:\n" + "".join(SERVICE.format(host=host) for host in cluster.lab.hosts()))
    tasks = {host: cluster.tasks(f"{app}/on-{host}")[0]["address"] for host in cluster.lab.hosts()}
    leader = cluster.leader()
    host = leader if part == "leader" else next(name for name in cluster.lab.hosts() if name != leader)
    other = next(name for name in cluster.lab.hosts() if name != host)
    old, new = cluster.lab.address(host), f"10.99.0.{140 + int(host.partition('-')[2])}"
    shortest = {old: math.inf, new: math.inf}  # a machine that is busy makes a gap longer, never shorter
    try:
        for _ in range(TRIES_MAX):
            for before, after in ((old, new), (new, old)):
                gaps = moves(cluster, host, before, after, tasks)
                logging.info("%s, the %s, from %s to %s: %s", host, part, before, after, gaps)
                shortest[after] = min(shortest[after], max(gaps))
                cluster.wait(lambda at=after: voter_address(cluster, host, other) == f"{at}:7444", "its vote is there")  # type: ignore[misc]
            if max(shortest.values()) <= GAP_SECONDS_MAX:
                break
    finally:
        if f" {new}/" in cluster.lab.run_in(host, ["ip", "-br", "address"]).stdout:
            change_address(cluster, host, new, old)
    cluster.wait(lambda: cluster.json("raft", "status", host=other)["voters_up"] == 3, "all vote")
    assert max(shortest.values()) <= GAP_SECONDS_MAX, shortest
