"""Scaling by load: what a load asks for, and what becomes of it in simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.orchestration.autoscale_loads import Load, Measure, Smoothed, loads_of
from daemon.orchestration.autoscale_plan import (
    GROWTH_FACTOR,
    GROWTH_TASKS,
    TOLERANCE,
    Decision,
    History,
    ask,
    changed,
    decide,
    needed,
)
from daemon.orchestration.scraped_metrics import key_of, value_in
from proto import objects_pb2 as objects
from proto.host_pb2 import ScrapedValue, TaskLoad

STEP_MS = 3_000
STABILISATION_MS = 60_000
State = objects.Autoscaling


def service(low: int, high: int, replicas: int, **scale: int) -> objects.Service:
    made = objects.Service(generation=1)
    made.spec.replicas = replicas
    wanted = {"replicas_min": low, "replicas_max": high, "connections": 10, "stabilisation_ms": STABILISATION_MS}
    for name, value in {**wanted, **scale}.items():
        setattr(made.spec.autoscale, name, value)
    return made


def load(values: Sequence[float | None], target: float = 10.0, problem: str = "") -> Load:
    return Load(Measure("connections", target, lambda _: None, str), values, problem)


@pytest.mark.parametrize(
    ("values", "tasks"),
    [
        ([], None),
        ([None, None], None),
        ([10, 10], 2),
        ([11, 11], 2),  # within the tolerance
        ([12, 11], 3),
        ([9.1, 9.1], 2),
        ([8, 8], 2),  # both are needed
        ([4, 4], 1),
        ([0, 0, 0], 1),
        ([100], 10),
        ([30, None], 3),  # the unknown one counts as idle
        ([15, None], 2),
        ([1, None, None], 3),  # ... and as fully loaded
        ([0, 0, 0, None], 1),
    ],
)
def test_what_a_load_asks_for(values: list[float | None], tasks: int | None) -> None:
    assert needed(values, 10.0) == tasks


def test_the_measure_that_asks_for_most_counts_and_an_unknown_one_keeps_what_there_is() -> None:
    assert ask([load([10, 10]), load([50, 50])], 2).tasks == 10
    assert ask([load([1, 1])], 2).tasks == 1
    kept = ask([load([1, 1]), load([None, None], problem="GET :80/metrics: HTTP 404")], 2)
    assert kept.tasks == 2 and "HTTP 404" in kept.because
    assert ask([load([90, 90]), load([None, None])], 2).tasks == 18
    assert ask([load([None])], 1).tasks is None


class Simulation:
    """One service whose total load is spread over its ready tasks; a new task is ready after `start_steps`."""

    def __init__(self, service: objects.Service, start_steps: int = 2) -> None:
        self.service, self.now_ms = service, 1_000_000
        self.history = History(self.now_ms)
        self.start_steps = start_steps
        self.ages = [start_steps] * service.spec.replicas
        self.changes: list[tuple[int, int]] = []  # (before, after)

    def step(self, total: float, known: Callable[[int], bool] = lambda slot: True) -> Decision:
        self.now_ms += STEP_MS
        ready = sum(age >= self.start_steps for age in self.ages)
        values = [
            total / ready if age >= self.start_steps and known(slot) else None for slot, age in enumerate(self.ages)
        ]
        asked = ask([load(values)], self.service.spec.replicas)
        self.history.note(
            self.now_ms, self.service.spec.replicas if asked.tasks is None else asked.tasks, STABILISATION_MS
        )
        decision = decide(self.service, asked, self.history, self.now_ms)
        before = self.service.spec.replicas
        if decision.replicas != before:
            self.changes.append((before, decision.replicas))
            self.service.spec.replicas = decision.replicas
        self.ages = [age + 1 for age in self.ages[: decision.replicas]]
        self.ages += [0] * (decision.replicas - len(self.ages))
        return decision


@given(st.floats(0, 2_000), st.integers(1, 20), st.integers(0, 80), st.integers(1, 100), st.integers(0, 10))
@settings(deadline=None)
def test_a_steady_load_is_reached_once_and_for_all(
    total: float, low: int, more: int, replicas: int, start_steps: int
) -> None:
    high = low + more
    simulation = Simulation(service(low, high, min(max(replicas, low), high)), start_steps)
    for _ in range(120):
        simulation.step(total)
    reached = simulation.service.spec.replicas
    ratio = total / (reached * 10.0)
    assert reached == high or ratio <= 1 + TOLERANCE + 1e-6
    assert reached == low or ratio >= (1 - TOLERANCE) * (reached - 1) / reached - 1e-6
    directions = {after > before for before, after in simulation.changes}
    assert len(directions) <= 1, simulation.changes  # no way back: no flapping
    count = len(simulation.changes)
    for _ in range(40):
        simulation.step(total)
    assert len(simulation.changes) == count


@given(
    st.lists(st.tuples(st.floats(0, 3_000), st.integers(0, 3)), min_size=1, max_size=150),
    st.integers(1, 10),
    st.integers(0, 60),
    st.booleans(),
)
@settings(deadline=None)
def test_whatever_the_load_bounds_and_windows_hold(
    course: list[tuple[float, int]], low: int, more: int, rolling: bool
) -> None:
    high = low + more
    simulation = Simulation(service(low, high, low))
    if rolling:
        simulation.service.rollout.state, simulation.service.rollout.generation = objects.Rollout.STATE_GOING, 1
    began_ms, last_up_ms = simulation.now_ms, -math.inf
    for total, unknown in course:
        before = simulation.service.spec.replicas
        decision = simulation.step(total, lambda slot, unknown=unknown: slot >= unknown)  # type: ignore[misc]
        assert low <= decision.replicas <= high
        assert decision.replicas <= max(before * GROWTH_FACTOR, before + GROWTH_TASKS)
        assert decision.message and decision.state
        if decision.replicas > before:
            last_up_ms = simulation.now_ms
        if decision.replicas < before:
            assert not rolling
            assert simulation.now_ms - max(began_ms, last_up_ms) >= STABILISATION_MS - STEP_MS


def test_a_load_that_comes_and_goes_is_followed_up_at_once_and_down_after_a_while() -> None:
    simulation = Simulation(service(2, 20, 2))
    simulation.step(15)
    assert simulation.step(100).replicas == 6  # by at most 4
    for _ in range(5):
        simulation.step(100)
    assert simulation.service.spec.replicas == 10
    began_ms = simulation.now_ms
    decision = simulation.step(10)
    assert (decision.replicas, decision.state) == (10, State.STATE_WAITING) and "for 60 s" in decision.message
    while simulation.service.spec.replicas == 10:
        decision = simulation.step(10)
    assert simulation.now_ms - began_ms >= STABILISATION_MS - STEP_MS
    assert (decision.replicas, decision.state) == (2, State.STATE_SCALED)
    assert simulation.step(0).state == State.STATE_AT_MIN


def test_a_bound_that_the_file_changed_counts_at_once_and_nothing_known_changes_nothing() -> None:
    history = History(0)
    asked = ask([load([None])], 1)
    assert decide(service(3, 5, 1), asked, history, 0).replicas == 3
    assert decide(service(1, 5, 9), asked, history, 0).replicas == 5
    unknown = decide(service(1, 5, 1), asked, history, 0)
    assert (unknown.replicas, unknown.state) == (1, State.STATE_UNKNOWN)


def test_up_waits_where_the_file_says_so() -> None:
    simulation = Simulation(service(1, 10, 1, up_stabilisation_ms=10 * STEP_MS))
    states = [simulation.step(40).state for _ in range(9)]
    assert set(states) == {State.STATE_WAITING}
    simulation.step(5)
    assert {simulation.step(40).replicas for _ in range(9)} == {1}
    assert max(simulation.step(40).replicas for _ in range(3)) == 4


def test_only_news_are_stored() -> None:
    made = service(1, 10, 2)
    loads = [load([10, 10])]
    steady = Decision(2, State.STATE_STEADY, "steady")
    after = changed(made, steady, loads, 1_000_000)
    assert after is not None and after.autoscaling.loads[0].percent == 100 and not after.autoscaling.changed_unix_ms
    assert changed(after, steady, loads, 2_000_000) is None
    assert changed(after, steady, [load([10.2, 10.2])], 2_000_000) is None
    assert changed(after, steady, [load([13, 13])], 1_030_000) is None
    assert changed(after, steady, [load([13, 13])], 1_060_000) is not None
    waiting = Decision(2, State.STATE_WAITING, "waits")
    assert changed(after, waiting, loads, 1_005_000) is None and changed(after, waiting, loads, 1_010_000) is not None
    scaled = changed(after, Decision(4, State.STATE_SCALED, "much to do"), loads, 1_000_001)
    assert scaled is not None and scaled.spec.replicas == 4 and scaled.autoscaling.changed_unix_ms == 1_000_001
    assert (scaled.autoscaling.replicas_before, scaled.autoscaling.replicas_after) == (2, 4)


def task(slot: int, **status: object) -> objects.Task:
    made = objects.Task(desired=objects.DESIRED_STATE_RUNNING, slot=slot, generation=1, node_id="node")
    made.meta.id = f"task-{slot}-{len(status)}"
    fields = {"state": objects.TASK_STATE_RUNNING, "ready": True, **status}
    made.status.CopyFrom(objects.TaskStatus(**fields))  # type: ignore[arg-type]
    return made


def test_loads_are_of_slots_and_of_tasks_that_serve() -> None:
    made = service(1, 9, 4, cpu_percent=50)
    made.spec.resources.cpu_limit_millis = 1000
    starting = task(3, ready=False, health=objects.HEALTH_STARTING)
    overloaded = task(4, ready=False, health=objects.HEALTH_NOT_READY)
    older = task(1)
    older.meta.id = "older"
    tasks = [task(1), older, task(2), starting, overloaded]
    loads = {each.meta.id: TaskLoad(cpu_millis=100, cpu_known=True, clients=3, clients_known=True) for each in tasks}
    cpu, connections = loads_of(made, tasks, loads)
    assert (cpu.measure.target, cpu.values) == (500.0, [200.0, 100.0, None, 100.0])
    assert connections.values == [6.0, 3.0, None, 3.0]
    assert cpu.measure.words(300.0) == "0.3 CPU"
    made.spec.resources.cpu_reserved_millis = 200  # goes before the limit
    assert loads_of(made, tasks, {})[0].measure.target == 100.0
    made.traffic.generation, made.traffic.switched = 2, False
    assert loads_of(made, tasks, loads)[0].values == [200.0, 100.0, None, 100.0]
    made.traffic.switched = True  # all of these are of the side without traffic
    assert loads_of(made, tasks, loads)[0].values == [None] * 4


def test_loads_are_smoothed_and_forgotten() -> None:
    smoothed = Smoothed()
    now = smoothed.take({"a": TaskLoad(cpu_millis=0, cpu_known=True)}, 0.0)
    assert now["a"].cpu_millis == 0
    now = smoothed.take({"a": TaskLoad(cpu_millis=1000, cpu_known=True)}, 3.0)
    assert 200 < now["a"].cpu_millis < 500
    for second in range(4, 60):
        now = smoothed.take({"a": TaskLoad(cpu_millis=1000, cpu_known=True)}, float(second))
    assert now["a"].cpu_millis > 990
    assert smoothed.take({}, 60.0) == {}
    gauge, counter = (objects.ScrapedMetric(name="x", per_second=growing) for growing in (False, True))
    for value in (0.0, 100.0):
        scraped = [ScrapedValue(metric=key_of(metric), known=True, value=value) for metric in (gauge, counter)]
        now = smoothed.take({"b": TaskLoad(scraped=scraped)}, 61.0 + value / 50)
    assert value_in(now["b"], gauge) == 100 and 10 < (value_in(now["b"], counter) or 0) < 50
    assert smoothed.take({"a": TaskLoad(cpu_millis=7, cpu_known=True)}, 64.0)["a"].cpu_millis == 7
