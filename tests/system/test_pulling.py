"""Images from registries that are reached from the hosts' network, by the command line."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import images
from tests import registry_servers
from tests.registry_servers import PASSWORD, USER, Authority, Registry
from tests.runtime import image_builder
from tests.system.cluster import Cluster, Failed

PLAIN_PORT, SECURE_PORT = 5000, 5443


@dataclass(frozen=True)
class Place:
    """A namespace on the hosts' network, for registries."""

    cluster: Cluster
    folder: Path
    address: str

    def within(self, argv: Sequence[str]) -> list[str]:
        return self.cluster.lab.command_in("registry", argv)

    def push(self, archive: Path, name: str, *options: str) -> None:
        registry_servers.push(archive, name, *options, within=self.within)

    @contextlib.contextmanager
    def registry(self, port: int, **more: object) -> Iterator[Registry]:
        address = f"{self.address}:{port}"
        folder = self.folder / str(port)
        with registry_servers.registry(folder, address, within=self.within, **more) as running:  # type: ignore[arg-type]
            try:
                yield running
            finally:
                self.cluster.fairway("registry", "rm", address, ok=False)


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Place:
    cluster.lab.client("registry")
    return Place(cluster, tmp_path, cluster.lab.address("registry"))


@pytest.fixture
def forget(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """Images whose names have this in them are removed at the end, when the test's app is gone."""
    parts: list[str] = []
    yield parts.append
    for image in cluster.json("image", "ls"):
        if any(part in image["meta"]["name"] for part in parts):
            with contextlib.suppress(Failed):  # the last revision of the app may have taken it along
                cluster.json("image", "rm", "-f", image["meta"]["name"])


def everywhere(image: str, policy: str = "missing") -> str:
    return f"""
services:
  tool:
    image: {image}
    command: sleep 1000
    stop_grace_period: 0s
    pull_policy: {policy}
    deploy: {{mode: global, update_config: {{parallelism: 3, monitor: 0s}}}}
"""


def digests(cluster: Cluster, app: str) -> set[str]:
    return {task["image_digest"] for task in cluster.tasks(f"{app}/tool")}


def test_a_deploy_pulls_an_image_once_for_all_hosts_and_all_its_tasks_run_the_same(
    cluster: Cluster, place: Place, forget: Callable[[str], None], deployed: Callable[[str], str], tmp_path: Path
) -> None:
    forget(place.address)
    with place.registry(PLAIN_PORT) as registry:
        image = f"{registry.address}/team/tool:1"
        place.push(images.build("busybox"), image)
        assert f"fairway registry set {registry.address} --insecure" in cluster.refused("image", "pull", image)
        cluster.json("registry", "set", registry.address, "--insecure")
        app = deployed(everywhere(image))
        assert len(cluster.tasks(f"{app}/tool")) == 3
        (first,) = digests(cluster, app)
        shown = cluster.json("image", "inspect", image)
        assert (shown["image"]["manifest_digest"], shown["services"]) == (first, [f"{app}/tool"])
        blobs = [shown["manifest"]["config"], *shown["manifest"]["layers"]]
        for blob in blobs:
            assert registry.requests(f"GET /v2/team/tool/blobs/{blob['digest']}") == 1
        assert [pulled["present"] for pulled in cluster.json("image", "pull", image)] == [True]

        place.push(image_builder.oci_layout(tmp_path / "other.tar", ""), image)  # the tag means something else now
        cluster.deploy(f"name: {app}\n{everywhere(image)}")
        assert digests(cluster, app) == {first}
        cluster.deploy(f"name: {app}\n{everywhere(image, 'always')}")
        (second,) = digests(cluster, app)
        assert second != first
        names = [each["meta"]["name"] for each in cluster.json("image", "ls")]
        assert f"{registry.address}/team/tool@{first}" in names, "the earlier revision's content is gone"
    cluster.fairway("service", "rollback", f"{app}/tool")
    assert digests(cluster, app) == {first}, "without the registry"


def test_a_service_waits_for_its_registry_and_starts_when_the_cluster_is_let_in(
    cluster: Cluster, place: Place, forget: Callable[[str], None], deployed: Callable[[str], str], tmp_path: Path
) -> None:
    forget(place.address)
    authority = Authority(tmp_path / "ca", place.address)
    with place.registry(SECURE_PORT, authority=authority, basic=True) as registry:
        image = f"{registry.address}/private/tool:1"
        place.push(images.build("busybox"), image, "--dest-creds", f"{USER}:{PASSWORD}")
        path = cluster.folder / "waits.yaml"
        app = deployed("services: {tool: {image: 'static-web:1'}}")
        path.write_text(f"name: {app}\n{everywhere(image)}")
        warned = cluster.fairway("deploy", str(path), "--timeout", "1s", ok=False)
        assert "certificate that is not trusted" in warned.stderr
        words = "is not in the cluster: pull it"
        cluster.wait(lambda: words in cluster.pending_reasons(f"{app}/tool"), "it is said why it waits")

        cluster.json("registry", "set", registry.address, "--ca", str(authority.ca_file))
        login = ("registry", "login", registry.address, "--user", USER, "--password-stdin")
        wrong = cluster.fairway(*login, text_in="wrong", ok=False)
        assert f"does not let user {USER}" in wrong.stderr
        cluster.fairway(*login, text_in=f"{PASSWORD}\n")

        def run_it() -> bool:
            tasks = [task for task in cluster.tasks(f"{app}/tool") if task["status"]["ready"]]
            return [task["spec"]["container"]["image"] for task in tasks] == [image] * 3

        cluster.wait(run_it, "the leader has pulled the image by itself, and the tasks run")
        (shown,) = [each for each in cluster.json("registry", "ls") if each["meta"]["name"] == registry.address]
        assert (shown["user"], shown["sealed_password"]) == (USER, "")
        for host in cluster.lab.hosts():
            for file in (cluster.lab.paths.host_state(host) / "fairway" / "raft").glob("cluster.sqlite*"):
                assert PASSWORD.encode() not in file.read_bytes()


def test_a_host_that_never_had_an_image_gets_it_from_the_others_when_the_registry_is_gone(
    cluster: Cluster, place: Place, forget: Callable[[str], None], deployed: Callable[[str], str], tmp_path: Path
) -> None:
    forget(place.address)
    layers = [*image_builder.busybox_layers(), image_builder.layer({"more": (os.urandom(3 << 20), 0o644)}, {}, {})]
    archive = image_builder.oci_layout(tmp_path / "more.tar", "", layers=layers)
    late = next(host for host in cluster.lab.hosts() if host not in (cluster.leader(), "host-1"))
    late_id = next(node_id for node_id, name in cluster.node_names().items() if name == late)
    with place.registry(PLAIN_PORT) as registry, _away(cluster, late):
        image = f"{registry.address}/team/more:1"
        place.push(archive, image)
        cluster.json("registry", "set", registry.address, "--insecure")
        app = deployed(
            f"""
services:
  tool:
    image: {image}
    command: sleep 1000
    stop_grace_period: 0s
    deploy: {{replicas: 2, placement: {{max_replicas_per_node: 1}}}}
"""
        )
        shown = cluster.json("image", "inspect", image)
        assert late_id not in shown["image"]["node_ids"]
        own = shown["manifest"]["layers"][-1]["digest"]  # a host may have the other ones of other images
        assert registry.requests(f"GET /v2/team/more/blobs/{own}") == 1, "read once for all hosts"
    cluster.fairway("scale", f"{app}/tool=3")
    cluster.wait(lambda: cluster.ready(f"{app}/tool", 3, "host-1"), "the third task runs")
    assert late_id in {task["node_id"] for task in cluster.tasks(f"{app}/tool")}


@contextlib.contextmanager
def _away(cluster: Cluster, host: str) -> Iterator[None]:
    """Its fairwayd stands still meanwhile, and it gets no tasks."""
    cluster.json("node", "cordon", host)
    process = cluster.lab.restart_daemon(host, number=signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)
        cluster.wait(lambda: bool(cluster.json("node", "activate", host)), f"{host} takes tasks again")


def test_an_image_of_a_hosts_own_containerd_is_pushed_to_the_cluster(
    cluster: Cluster, forget: Callable[[str], None], tmp_path: Path
) -> None:
    name = f"example.com/pushed-{tmp_path.name}:1".lower().replace("_", "-")
    forget(name)
    archive = image_builder.docker_save(tmp_path / "own.tar", name)
    cluster.lab.run_in("host-2", ["ctr", "-n", "own", "images", "import", str(archive)])
    socket = f"/proc/{cluster.lab.process_ids('host-2')['containerd']}/root/run/containerd/containerd.sock"
    (pushed,) = cluster.json("image", "push", name, "-n", "own", "--containerd", socket)
    assert pushed["meta"]["name"] == name
    cluster.wait(lambda: _holders(cluster, name) == 3, "every host has it")
    cluster.lab.run_in("host-2", ["ctr", "-n", "own", "images", "rm", name])


def _holders(cluster: Cluster, name: str) -> int:
    return len(cluster.json("image", "inspect", name)["image"]["node_ids"])
