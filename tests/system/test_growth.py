"""More hosts than voters: who votes, who only works, and how hosts leave and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cluster import Lab
from tests.system.cluster import Cluster, run_in_task
from tests.system.conftest import unique_name

HOSTS = 7
WORKERS = ("host-6", "host-7")
SOUTH = ("host-5", *WORKERS)  # a zone; the others are in the north
APP = """
name: wide
services:
  web:
    image: busybox:1
    command: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
    deploy: {replicas: 14}
"""
SECRET_APP = """
name: hidden
services:
  box:
    image: busybox:1
    command: ["sleep", "100000"]
    init: true
    stop_grace_period: 1s
    secrets: [of-workers]
    deploy: {placement: {constraints: ["node.role == worker"]}}
secrets: {of-workers: {external: true}}
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Seven hosts, of which the lab joins five as voters and two by a worker's token; an app on all of them."""
    with Lab.make(unique_name(), HOSTS) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("grown"))
        cluster.load_image("busybox")
        cluster.deploy(APP)
        yield cluster


def voters(cluster: Cluster) -> set[str]:
    return {view["node"]["meta"]["name"] for view in cluster.json("node", "ls") if view["node"]["voter"]}


def hosts_with_tasks(cluster: Cluster) -> set[str]:
    names = cluster.node_names()
    return {names[task["node_id"]] for task in cluster.tasks("wide/web") if task["desired"] == "running"}


def test_five_hosts_vote_and_the_others_hold_no_state_but_run_tasks(grown: Cluster) -> None:
    grown.wait(lambda: len(voters(grown)) == 5, "five hosts vote")
    assert not voters(grown) & set(WORKERS)
    assert hosts_with_tasks(grown) == set(grown.lab.hosts())
    for host in WORKERS:
        done = grown.lab.run_in(host, ["ls", "/var/lib/fairway/raft"], check=False)
        assert done.stdout == "", f"{host} holds the cluster's state"


def test_a_worker_says_that_it_has_no_say(grown: Cluster) -> None:
    words = grown.refused("scale", "wide/web=1", host="host-7")
    assert "worker" in words
    assert len(grown.tasks("wide/web")) == 14


def test_a_worker_has_the_secrets_of_its_tasks_from_a_voter(grown: Cluster) -> None:
    grown.fairway("secret", "create", "of-workers", "-", text_in="known to workers")
    grown.deploy(SECRET_APP)
    assert run_in_task(grown, "hidden/box", "cat", "/run/secrets/of-workers") == "known to workers"
    grown.remove("hidden")
    grown.fairway("secret", "rm", "of-workers")
    for host in WORKERS:
        grown.wait(
            lambda on=host: not grown.lab.run_in(on, ["sh", "-c", "ls /run/fairway/secrets/* || true"]).stdout,  # type: ignore[misc]
            f"nothing of the secret is left on {host}",
        )


def phase(cluster: Cluster, host: str) -> str:
    found = cluster.local_status(host)
    return str(found["phase"])


def test_a_host_in_use_is_not_removed_without_force(grown: Cluster) -> None:
    with grown.unchanged():
        assert "drain" in grown.refused("node", "rm", "host-6")


def test_a_drained_host_leaves_and_comes_back_with_a_new_token(grown: Cluster) -> None:
    grown.fairway("node", "drain", "host-6")
    assert "host-6" not in hosts_with_tasks(grown)
    grown.fairway("node", "rm", "host-6")
    assert "host-6" not in grown.node_names().values()
    grown.wait(lambda: phase(grown, "host-6") == "removed", "its daemon has noticed")
    assert "removed" in grown.fairway("status", host="host-6", ok=False).stdout
    token = grown.fairway("token", "create", "--role", "worker", "-q").stdout.strip()
    join(grown, "host-6", token)
    grown.fairway("scale", "wide/web=16")
    grown.wait(lambda: "host-6" in hosts_with_tasks(grown), "it runs tasks again")


def join(cluster: Cluster, host: str, token: str) -> None:
    address = cluster.lab.address(host)

    def joined() -> bool:
        """The answer may be lost while the host changes over; it is in the cluster then."""
        words = ("join", cluster.lab.address("host-1"), "--token", token, "--address", address)
        return cluster.fairway(*words, host=host, ok=False).returncode == 0 or ready(cluster, host)

    cluster.wait(joined, f"{host} has joined")
    cluster.wait(lambda: ready(cluster, host), f"{host} is ready")


def ready(cluster: Cluster, host: str) -> bool:
    nodes = [view["node"] for view in cluster.json("node", "ls")]
    return any(node["meta"]["name"] == host and node["state"] == "ready" for node in nodes)


def test_a_host_that_is_removed_by_force_stops_its_tasks(grown: Cluster) -> None:
    before = len(grown.tasks("wide/web"))
    grown.fairway("node", "rm", "host-7", "--force")
    grown.wait(lambda: phase(grown, "host-7") == "removed", "its daemon has noticed")
    left = ["ctr", "-n", "fairway", "containers", "ls", "-q"]
    grown.wait(lambda: grown.lab.run_in("host-7", left).stdout == "", "its tasks have stopped")
    grown.wait(lambda: grown.ready("wide/web", before, "host-1"), "they run elsewhere")
    token = grown.fairway("token", "create", "--role", "worker", "-q").stdout.strip()
    join(grown, "host-7", token)


def test_a_voter_that_is_removed_is_replaced_in_the_vote_only_by_hosts_that_may(grown: Cluster) -> None:
    follower = next(name for name in sorted(voters(grown)) if name not in (grown.leader(), "host-1"))
    grown.fairway("node", "rm", follower, "--force")
    grown.wait(lambda: phase(grown, follower) == "removed", f"{follower} has noticed")
    grown.wait(lambda: len(voters(grown)) == 3, "an odd number votes")
    token = grown.fairway("token", "create", "--role", "voter", "-q").stdout.strip()
    join(grown, follower, token)
    grown.wait(lambda: len(voters(grown)) == 5, "five hosts vote again")


@pytest.fixture
def zones(grown: Cluster) -> Iterator[None]:
    for host in grown.lab.hosts():
        grown.fairway("node", "label", host, f"zone={'south' if host in SOUTH else 'north'}")
    yield
    grown.make_whole()
    grown.let_go("zoned")
    for host in grown.lab.hosts():
        grown.fairway("node", "label", host, "zone-")


def test_what_a_dark_zone_ran_is_spread_over_the_others_and_ends_there_when_it_is_back(
    grown: Cluster, zones: None
) -> None:
    grown.deploy(APP.replace("wide", "zoned").replace("replicas: 14", f"replicas: {HOSTS}"))
    names = grown.node_names()

    def by_host() -> dict[str, set[str]]:
        """Of the tasks that are ready and are to stay."""
        found: dict[str, set[str]] = {host: set() for host in grown.lab.hosts()}
        for task in grown.tasks("zoned/web"):
            if task["status"]["ready"] and task["desired"] == "running":
                found[names[task["node_id"]]].add(task["meta"]["id"])
        return found

    def count(tasks: dict[str, set[str]], zone: list[str]) -> int:
        return sum(len(tasks[host]) for host in zone)

    south, north = list(SOUTH), [host for host in grown.lab.hosts() if host not in SOUTH]
    before = by_host()
    assert all(len(tasks) == 1 for tasks in before.values())
    grown.lab.partition(south)
    grown.wait(lambda: (count(by_host(), north), count(by_host(), south)) == (HOSTS, 0), "all run in the north")
    now = by_host()
    assert all(before[host] <= now[host] for host in north), "what ran there is not touched"
    assert {len(now[host]) for host in north} == {1, 2}
    grown.make_whole()

    def containers(host: str) -> set[str]:
        return set(grown.lab.run_in(host, ["ctr", "-n", "fairway", "containers", "ls", "-q"]).stdout.split())

    grown.wait(lambda: not any(before[host] & containers(host) for host in south), "what was replaced has ended")
    assert count(by_host(), [*north, *south]) == HOSTS
