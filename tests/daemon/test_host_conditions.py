"""Hosts that are short of something: when they say so, who is placed there, and what leaves them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from daemon.agent.condition_agent import ClockWatch, ConditionAgent, stalled, write_error
from daemon.agent.reports import Reports
from daemon.config import Config, HostConfig, LogsConfig, StorageConfig
from daemon.host_conditions import (
    BARRING,
    CLOCK,
    CONTAINERD,
    CPU,
    DISK,
    FAILING,
    LEAVING,
    MEMORY,
    PIDS,
    READ_ONLY,
    FileSystem,
    Readings,
    conditions_of,
)
from daemon.orchestration.pending_plan import STARTING_A_HOST_MAX
from daemon.orchestration.relief_plan import LEAVE_AFTER_MS, plan_relief
from proto import objects_pb2 as objects
from raft.transaction import TransactionBuilder
from tests.daemon.cluster_model import ClusterModel, app_spec, service_spec, with_volume


def kinds(readings: Readings, *holding: str) -> list[str]:
    return [each.kind for each in conditions_of(readings, holding)]


@pytest.mark.parametrize(
    ("kind", "begins", "between", "over"),
    [
        (MEMORY, Readings(memory_available=0.03), Readings(memory_available=0.05), Readings(memory_available=0.1)),
        (MEMORY, Readings(memory_stalled=0.4), Readings(memory_stalled=0.2), Readings(memory_stalled=0.05)),
        (CPU, Readings(cpu_stalled=0.95), Readings(cpu_stalled=0.8), Readings(cpu_stalled=0.7)),
        (PIDS, Readings(pids_used=0.95), Readings(pids_used=0.85), Readings(pids_used=0.5)),
        (
            DISK,
            Readings(file_systems=[FileSystem("logs", free=0.03)]),
            Readings(file_systems=[FileSystem("logs", free=0.05)]),
            Readings(file_systems=[FileSystem("logs", free=0.1)]),
        ),
        (
            DISK,
            Readings(file_systems=[FileSystem("logs", inodes_free=0.03)]),
            Readings(file_systems=[FileSystem("logs", inodes_free=0.05)]),
            Readings(),
        ),
    ],
)
def test_a_condition_ends_further_away_than_it_begins(
    kind: str, begins: Readings, between: Readings, over: Readings
) -> None:
    assert kinds(begins) == [kind]
    assert kinds(between) == []
    assert kinds(between, kind) == [kind]
    assert kinds(over, kind) == []


def test_what_is_broken_is_said_and_containerd_has_time_to_start_anew() -> None:
    systems = [FileSystem("the state", read_only=True), FileSystem("logs", error="Input/output error")]
    found = conditions_of(Readings(file_systems=systems), ())
    assert [(each.kind, each.message) for each in found] == [
        (READ_ONLY, "the state cannot be written to"),
        (FAILING, "logs: Input/output error"),
    ]
    assert kinds(Readings(containerd_error="no answer", containerd_silent_s=5)) == []
    assert kinds(Readings(containerd_error="no answer", containerd_silent_s=11)) == [CONTAINERD]


def test_pressure_as_the_kernel_says_it(tmp_path: Path) -> None:
    text = "some avg10=82.48 avg60=53.41 avg300=33.04 total=1\nfull avg10=0.10 avg60=0.20 avg300=0.00 total=0\n"
    assert stalled(text, "some", "avg300") == pytest.approx(0.3304)
    assert stalled(text, "full", "avg60") == pytest.approx(0.002)
    assert stalled("", "full", "avg60") == 0
    assert write_error(tmp_path) == "" and not list(tmp_path.iterdir())
    assert write_error(tmp_path / "nothing") != ""


def told(reports: Reports) -> list[str]:
    return [each.kind for each in reports.first("192.0.2.1").conditions]


def test_a_host_looks_at_itself(tmp_path: Path) -> None:
    for name in ("state", "volumes", "logs"):
        (tmp_path / name).mkdir()
    config = Config(
        host=HostConfig(state_folder=tmp_path / "state"),
        storage=StorageConfig(volumes_folder=tmp_path / "volumes"),
        logs=LogsConfig(folder=tmp_path / "logs"),
    )
    reports = Reports()
    agent = ConditionAgent(config, lambda: "", reports)
    trio.run(agent.look)
    assert reports.first("192.0.2.1").conditions_changed
    assert not set(told(reports)) & {READ_ONLY, FAILING, CONTAINERD}


@pytest.mark.parametrize(
    ("ahead_ms", "took_s", "skewed"), [(0, 0.1, False), (6_000, 0.1, True), (-6_000, 0.1, True), (6_000, 8.0, False)]
)
def test_a_clock_is_wrong_only_where_the_way_to_the_leader_cannot_be_why(
    ahead_ms: int, took_s: float, skewed: bool
) -> None:
    reports = Reports()
    watch = ClockWatch(reports)
    watch.answered(took_s, 0, 50_000)
    assert told(reports) == []
    watch.answered(took_s, 50_000, 50_000 + ahead_ms + int(took_s * 500))
    assert told(reports) == ([CLOCK] if skewed else [])
    watch.answered(0.1, 50_000, 50_000)
    assert told(reports) == []


def troubled(model: ClusterModel, host: str, kind: str = MEMORY, ago_ms: int = LEAVE_AFTER_MS) -> None:
    since = model.now_unix_ms - ago_ms
    model.change_node(host, conditions=[objects.NodeCondition(kind=kind, message="is bad", since_unix_ms=since)])


def well(model: ClusterModel, host: str) -> None:
    node = objects.Node()
    node.CopyFrom(next(each for each in model.store.table(objects.Node) if each.meta.name == host))
    del node.conditions[:]
    model.apply(TransactionBuilder().update(node))


@pytest.mark.parametrize("kind", sorted(BARRING))
def test_a_host_in_trouble_gets_no_tasks_until_it_is_over_and_why_is_true(kind: str) -> None:
    model = ClusterModel(1)
    troubled(model, "host-1", kind, 0)
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    (task,) = model.alive()
    assert task.status.message == f"no host fits: host-1 has {BARRING[kind][0]}"
    well(model, "host-1")
    model.settle()
    assert model.hosts() == ["host-1"]


def test_a_host_with_busy_cpus_takes_tasks() -> None:
    model = ClusterModel(1)
    troubled(model, "host-1", CPU)
    model.deploy(app_spec(web=service_spec(1)))
    model.settle()
    assert model.hosts() == ["host-1"]


def relieve(model: ClusterModel, seconds: int) -> list[int]:
    """For so long; how many tasks were on their way at each moment, and never one less serving than before."""
    serving = Counter(task.service for task in model.serving())
    at_once = []
    for _ in range(seconds):
        builder = plan_relief(model.store, model.now_unix_ms, model.new_id)
        if len(builder):
            model.apply(builder)
        model.plan()
        at_once.append(sum(task.HasField("move") and not task.status.ready for task in model.alive()))
        assert Counter(task.service for task in model.serving()) >= serving
        model.host_step()
        model.now_unix_ms += 1_000
    return at_once


def test_tasks_leave_such_a_host_a_few_at_a_time_after_a_while() -> None:
    model = ClusterModel(3)
    model.deploy(
        app_spec(web=service_spec(6), other=service_spec(3), db=with_volume(service_spec(1), "data"), volumes=["data"])
    )
    model.settle()
    before = Counter(model.hosts())
    troubled(model, "host-2", ago_ms=LEAVE_AFTER_MS - 20_000)
    relieve(model, 15)
    assert Counter(model.hosts()) == before
    at_once = relieve(model, 120)
    assert 1 <= max(at_once) <= 2
    left = [task.service for task in model.alive() if model.node_of(task).meta.name == "host-2"]
    assert set(left) <= {"db"}
    assert len(model.serving()) == 10 and len(set(model.hosts("web"))) == 2
    words = {task.desired_message for task in model.tasks() if task.desired == objects.DESIRED_STATE_STOPPED}
    assert any("host-2 has hardly any memory to spare" in each for each in words)


def test_nothing_leaves_where_most_hosts_are_in_trouble_or_it_may_stay() -> None:
    model = ClusterModel(4)
    model.deploy(app_spec(web=service_spec(8)))
    model.settle()
    before = Counter(model.hosts())
    for host in ("host-1", "host-2", "host-3"):
        troubled(model, host)
    relieve(model, 20)
    assert Counter(model.hosts()) == before
    for host in ("host-1", "host-2", "host-3"):
        well(model, host)
    troubled(model, "host-3", CLOCK)
    assert CLOCK not in LEAVING
    relieve(model, 20)
    assert Counter(model.hosts()) == before


@pytest.mark.parametrize(
    "closed", [{}, {"availability": objects.AVAILABILITY_CORDONED}, {"conditions": [objects.NodeCondition(kind=DISK)]}]
)
def test_a_dark_zone_does_not_overrun_the_hosts_that_are_left(closed: dict[str, Any]) -> None:
    """`closed`: why another one that is left takes nothing; its share is not for the one that does."""
    model = ClusterModel(4)
    model.deploy(app_spec(web=service_spec(240)))
    model.settle()
    assert len(model.serving()) == 240
    model.change_node("host-1", **closed)
    for number in (2, 3) if closed else (1, 2, 3):
        model.change_node(f"host-{number}", state=objects.NODE_STATE_DOWN)
        for task in list(model.alive()):
            if task.node_id and model.node_of(task).meta.name == f"host-{number}":
                _lose(model, task)
    most = 0
    for _ in range(20):
        model.plan()
        starting = [task for task in model.alive() if task.node_id and task.status.state < objects.TASK_STATE_RUNNING]
        most = max(most, len(starting))
        model.host_step()
        model.now_unix_ms += 1_000
    assert most == STARTING_A_HOST_MAX
    assert len(model.serving()) == 240


def _lose(model: ClusterModel, task: objects.Task) -> None:
    lost = objects.Task()
    lost.CopyFrom(task)
    lost.status.state = objects.TASK_STATE_LOST
    model.apply(TransactionBuilder().update(lost))
