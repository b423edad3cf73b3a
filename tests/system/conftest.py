"""One three-host lab for the tests of the whole; each test leaves it whole."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cluster import Lab
from tests.system.cluster import APP, Cluster

REPLICAS = 6


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three hosts, one cluster, the image of the site loaded."""
    with Lab.make(f"t{uuid.uuid4().hex[:6]}", 3, progress=lambda line: logging.info("%s", line)) as lab:
        made = Cluster(lab, tmp_path_factory.mktemp("site"))
        made.load_image("static-web")
        lab.client()
        yield made
        _keep_logs(lab)


def _keep_logs(lab: Lab) -> None:
    """With FAIRWAY_TEST_LOGS set, the daemons' logs are copied there before the lab goes."""
    folder = os.environ.get("FAIRWAY_TEST_LOGS")
    if folder:
        for host in lab.hosts():
            log = lab.run_in(host, ["cat", "/var/log/fairway/fairwayd.log"], check=False)
            Path(folder, f"{host}.log").write_text(log.stdout)


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the site on it, ready; removed afterwards."""
    cluster.deploy(APP.format(replicas=REPLICAS))
    yield cluster
    for host in cluster.lab.hosts():
        if not cluster.lab.is_on(host):
            cluster.lab.start(host)
    cluster.lab.heal()
    cluster.wait(lambda: all(v["node"]["state"] == "ready" for v in cluster.json("node", "ls")), "all hosts are ready")
    cluster.fairway("rm", "site", ok=False)
    cluster.wait(lambda: not cluster.json("ls"), "the site is gone")
