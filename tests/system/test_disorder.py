"""Changes of workloads beside failures of hosts end in what was asked for: a small part of `./run disorder`."""

from __future__ import annotations

import uuid

from tests.disorder.run import disorder
from tests.system.cluster import Cluster

CHANGES = 25
FAULTS = ("power cut", "daemon killed", "partition")
HOLD_SECONDS = (1.0, 4.0)
PORT = 18_600


def test_random_changes_beside_failures_of_hosts_end_in_what_was_asked_for(cluster: Cluster) -> None:
    said: list[str] = []
    seed = uuid.uuid4().int % 10**6
    result = disorder(
        cluster.lab,
        CHANGES,
        f"disorder-{uuid.uuid4().hex[:6]}",
        PORT,
        seed,
        said.append,
        app_count=5,
        faults_max=2,
        only=FAULTS,
        hold_seconds=HOLD_SECONDS,
    )
    assert result.changes >= CHANGES and sum(result.faults.values()) > 0, [seed, *said]
    assert not result.wrong, "\n".join([f"seed {seed}", *said, *result.wrong])
