"""Tasks that come and go leave nothing behind: a small part of `./run churn`, all but memory."""

from __future__ import annotations

import uuid

from tests.churn import judging
from tests.churn.run import churn
from tests.churn.workload import Size
from tests.system.cluster import Cluster

TASKS = 12
PORT = 18_480
SIZE = Size(high=6, waves=2)


def test_tasks_that_come_and_go_leave_nothing_on_the_hosts(cluster: Cluster) -> None:
    said: list[str] = []
    name = f"churn-{uuid.uuid4().hex[:6]}"
    result = churn(cluster.lab, TASKS, name, PORT, SIZE, 1, said.append, judge_memory=False)
    assert result.stopped >= TASKS, said
    assert not result.leaks, "\n".join([*result.leaks, judging.table(result.inventories)])
