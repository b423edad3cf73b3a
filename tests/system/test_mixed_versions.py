"""Two builds in one cluster: an upgrade host by host under load, and an older build that comes back too late."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import formation
from lab.cluster import Lab
from lab.layout import LabError
from raft.features import FEATURE_LEVEL
from tests.system import next_build
from tests.system.cluster import APP, Cluster, Failed, steady_load
from tests.system.conftest import keep_logs, unique_name

HOSTS = ("host-1", "host-2", "host-3")
OLD_VERSION = importlib.metadata.version("fairway")
LOAD_SECONDS_MAX = 400
DATABASE = "/var/lib/fairway/raft/cluster.sqlite"
STOPPED = (
    f"this build knows feature level {FEATURE_LEVEL}, the cluster is at {next_build.LEVEL}: "
    "upgrade fairway on this host"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next_build.make(tmp_path_factory.mktemp("builds") / "next")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Lab.make(unique_name(), len(HOSTS)) as lab:
        cluster = Cluster(lab, tmp_path_factory.mktemp("mixed"))
        cluster.load_image("static-web")
        lab.client()
        cluster.deploy(APP.format(replicas=3))
        yield cluster
        keep_logs(lab)


def versions(cluster: Cluster) -> dict[str, str]:
    """Host -> the version that the cluster knows it to run."""
    views = cluster.json("node", "ls")
    return {view["node"]["meta"]["name"]: view["node"]["description"]["fairway_version"] for view in views}


def level(cluster: Cluster, host: str = "host-1") -> int:
    return int(cluster.json("status", host=host)["cluster"]["feature_level"])


def all_ready(cluster: Cluster) -> bool:
    """To be waited for: Failed names who is not."""
    states = {view["node"]["meta"]["name"]: view["node"]["state"] for view in cluster.json("node", "ls")}
    if set(states.values()) != {"ready"}:
        raise Failed(f"hosts are not ready: {states}")
    return True


def change_build(cluster: Cluster, host: str, build: Path | None, version: str) -> None:
    cluster.lab.change_build(host, build)
    cluster.wait(
        lambda: versions(cluster)[host] == version and all_ready(cluster), f"{host} runs {version} and is ready"
    )


def let_lead(cluster: Cluster, wanted: str) -> None:
    """Whatever build it and its leader have."""
    cluster.fairway("raft", "transfer", wanted)
    cluster.wait(lambda: cluster.leader() == wanted, f"{wanted} leads")


def rows(cluster: Cluster, host: str, query: str) -> str:
    """What sqlite3 finds in the host's own copy of the state; empty where there is no such table."""
    return cluster.lab.run_in(host, ["sqlite3", DATABASE, query], check=False).stdout.strip()


def running_containers(cluster: Cluster, host: str) -> set[str]:
    listed = cluster.lab.run_in(host, ["ctr", "-n", "fairway", "tasks", "ls"]).stdout.splitlines()
    return {line.split()[0] for line in listed if "RUNNING" in line}


def test_an_upgrade_host_by_host_fails_no_request_and_the_level_rises_at_its_end(mixed: Cluster, build: Path) -> None:
    assert set(versions(mixed).values()) == {OLD_VERSION}
    first = next(host for host in HOSTS if host != mixed.leader())
    with steady_load(mixed, f"http://{mixed.vip('web')}:8000/", seconds=LOAD_SECONDS_MAX) as finish:
        change_build(mixed, first, build, next_build.VERSION)
        assert sorted(versions(mixed).values()) == sorted([OLD_VERSION, OLD_VERSION, next_build.VERSION])
        mixed.deploy(APP.format(replicas=4).replace("name: site", "name: second").replace('"8080:8000"', '"8081:8000"'))

        let_lead(mixed, first)  # a new leader of old hosts
        mixed.fairway("scale", "site/web=4")
        mixed.wait(lambda: len(mixed.serving("site/web")) == 4, "scaled by the new build")
        field = "select text from services where text like '%scaled_by%'"
        mixed.wait(lambda: next_build.VERSION in rows(mixed, first, field), "the new field is stored")
        mixed.wait(
            lambda: f"needs feature level {next_build.LEVEL}" in mixed.lab.paths.log(first, "fairwayd").read_text(),
            "the new leader holds back what the others do not know",
        )
        assert level(mixed) == FEATURE_LEVEL

        old = next(host for host in HOSTS if host != first)
        let_lead(mixed, old)  # an old leader of a new host, which writes the same object again
        mixed.fairway("scale", "site/web=5")
        mixed.wait(lambda: len(mixed.serving("site/web")) == 5, "scaled by the old build")
        mixed.wait(lambda: '"replicas": 5' in rows(mixed, first, field), "the old build kept the new field")

        rest = [host for host in HOSTS if host != first]
        change_build(mixed, rest[0], build, next_build.VERSION)
        assert level(mixed) == FEATURE_LEVEL
        assert not any(rows(mixed, host, "select id from notices") for host in (first, rest[0]))
        change_build(mixed, rest[1], build, next_build.VERSION)
        mixed.wait(lambda: level(mixed) == next_build.LEVEL, "every host knows the new level: it is in use")
        for host in HOSTS:
            mixed.wait(lambda host=host: rows(mixed, host, "select id from notices") == "n", f"{host} has the notice")  # type: ignore[misc]
        result = finish()
    assert result["failed"] == 0, result["reasons"]
    assert result["ok"] > 100


def test_an_older_build_comes_back_too_late_and_says_so(mixed: Cluster, build: Path) -> None:
    """After the test before: the cluster is at the new level."""
    if level(mixed) == FEATURE_LEVEL:
        pytest.skip("the upgrade did not get to its end")
    host = next(host for host in HOSTS if host != mixed.leader())
    other = next(name for name in HOSTS if name != host)
    before = running_containers(mixed, host)
    assert before
    mixed.lab.change_build(host, None)
    mixed.wait(lambda: STOPPED in mixed.local_status(host)["message"], f"{host} says what is wrong and what to do")
    assert STOPPED in mixed.fairway("status", host=host, ok=False).stdout
    assert STOPPED in mixed.refused("ls", host=host)
    mixed.wait(
        lambda: "upgrade fairway on " + host in mixed.fairway("node", "ls", host=other).stdout,
        "the cluster says it too",
    )
    assert running_containers(mixed, host) >= before

    def told() -> bool:  # by the host itself, which answers a little later when it is busy
        member = next(m for m in mixed.json("raft", "status", host=other)["members"] if m["name"] == host)
        return member["role"] == "stopped" and STOPPED in member["problem"]

    mixed.wait(told, "the other voters say that it has stopped, and why")

    newcomer = mixed.lab.add_host()
    formation.wait_for_daemon(mixed.lab.socket(newcomer), newcomer, lambda: None)
    token = mixed.fairway("token", "create", "--role", "worker", "-q", host=other).stdout.strip()
    with pytest.raises(LabError, match=f"cannot join: .*knows feature level {FEATURE_LEVEL}.*upgrade fairway"):
        formation.join(
            mixed.lab.socket(newcomer), newcomer, mixed.lab.address(newcomer), mixed.lab.address(other), token
        )

    mixed.lab.change_build(host, build)
    mixed.wait(lambda: all_ready(mixed) and mixed.has_quorum(host), f"{host} is back with the new build")
    assert rows(mixed, host, "select id from notices") == "n"
    mixed.lab.remove_host(newcomer)
