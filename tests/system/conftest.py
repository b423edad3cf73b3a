"""One three-host lab for the tests of the whole; each test leaves it whole."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cluster import Lab
from tests.system.cluster import APP, Cluster

REPLICAS = 6
# Modules whose tests look at all that runs, or need all the room of the hosts.
COUNTS_ALL = frozenset(
    ["budgets", "churn", "containers", "devices", "growth", "operating", "placement", "precedence", "workloads"]
)
SMALL_DISK_BYTES = 320 << 20


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three hosts, one cluster, the images of the tests loaded. FAIRWAY_TEST_LAB names one that is up already
    and stays up: what is quick while tests are written."""
    with contextlib.ExitStack() as stack:
        if up_already := os.environ.get("FAIRWAY_TEST_LAB"):
            lab = Lab.open(up_already)
        else:
            lab = stack.enter_context(Lab.make(unique_name(), 3, progress=_log))
        made = Cluster(lab, tmp_path_factory.mktemp("site"))
        for image in ("static-web", "shop-api"):
            made.load_image(image)
        lab.client()
        yield made
        keep_logs(lab)


@pytest.fixture(scope="session")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Another cluster, of one host whose disk is small."""
    folder = tmp_path_factory.mktemp("small-disk")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_small_disk(folder))
        lab = stack.enter_context(Lab.make(unique_name(), 1, state_folder=folder / "disk/lab", progress=_log))
        made = Cluster(lab, tmp_path_factory.mktemp("lonely"))
        made.load_image("busybox")
        yield made
        keep_logs(lab)


@pytest.fixture
def deployed(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Deploys an app under a name of its own, given the text below `services:`; removed afterwards."""
    names: list[str] = []

    def deploy(services: str) -> str:
        name = f"app-{uuid.uuid4().hex[:6]}"
        names.append(name)
        cluster.deploy(f"name: {name}\n{services}")
        return name

    yield deploy
    for name in names:
        cluster.let_go(name)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> None:
    """Most tests begin while the app of the one before is still on its way out."""
    name = request.path.stem.removeprefix("test_")
    if name in COUNTS_ALL and "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").settle()


def unique_name() -> str:
    return f"t{uuid.uuid4().hex[:6]}"


def _log(line: str) -> None:
    logging.info("%s", line)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of SMALL_DISK_BYTES at folder/disk."""
    image, disk = folder / "disk.img", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(SMALL_DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=60)


def keep_logs(lab: Lab) -> None:
    """With FAIRWAY_TEST_LOGS set, the daemons' logs are copied there before the lab goes."""
    folder = os.environ.get("FAIRWAY_TEST_LOGS")
    if folder:
        for host in lab.hosts():
            log = lab.run_in(host, ["cat", "/var/log/fairway/fairwayd.log"], check=False)
            Path(folder, f"{lab.name}-{host}.log").write_text(log.stdout)


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the site on it, ready; removed afterwards."""
    cluster.settle()
    cluster.deploy(APP.format(replicas=REPLICAS))
    yield cluster
    cluster.make_whole()
    cluster.let_go("site")
    cluster.wait(lambda: not cluster.json("ls"), "the site is gone")
