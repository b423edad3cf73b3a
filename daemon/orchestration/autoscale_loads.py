"""What the load of a service is beside what its file wants a task to have. Pure.

Loads come from hosts, per task (proto TaskLoad). What is measured over a moment, CPU and how fast counters grow, jumps
about and is smoothed with a time constant of SMOOTHING_S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from daemon.orchestration.quantities import bytes_text, cpu_text
from daemon.orchestration.scraped_metrics import problem_in, value_in
from daemon.orchestration.task_states import alive, serving
from daemon.orchestration.traffic import gets_traffic
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad

SMOOTHING_S = 8.0
Read = Callable[[TaskLoad], float | None]


@dataclass(frozen=True)
class Measure:
    """One thing that is measured: of a task, in some unit; `target` in the same."""

    what: str
    target: float
    read: Read
    words: Callable[[float], str]
    metric: objects.ScrapedMetric | None = None  # where it is one


@dataclass(frozen=True)
class Load:
    """A measure with what was found: a value for each slot that is to have a task, None where none is known."""

    measure: Measure
    values: Sequence[float | None]
    problem: str = ""  # why values are not known, in words, of one task

    @property
    def average(self) -> float | None:
        known = [value for value in self.values if value is not None]
        return sum(known) / len(known) if known else None


class Smoothed:
    """Loads of tasks as they come in, smoothed; forgets tasks that it is not given any more."""

    def __init__(self) -> None:
        self._values: dict[str, TaskLoad] = {}
        self._at_s: float | None = None

    def take(self, loads: Mapping[str, TaskLoad], now_s: float) -> Mapping[str, TaskLoad]:
        """The newest loads by task, all of them; what they come to now."""
        elapsed_s = 0.0 if self._at_s is None else max(now_s - self._at_s, 0.0)
        self._at_s = now_s
        weight = 1.0 - math.exp(-elapsed_s / SMOOTHING_S)
        self._values = {task_id: _mixed(self._values.get(task_id), load, weight) for task_id, load in loads.items()}
        return self._values


def _mixed(before: TaskLoad | None, now: TaskLoad, weight: float) -> TaskLoad:
    if before is None:
        return now
    mixed = TaskLoad()
    mixed.CopyFrom(now)
    if before.cpu_known and now.cpu_known:
        mixed.cpu_millis = round(before.cpu_millis + weight * (now.cpu_millis - before.cpu_millis))
    known = {value.metric: value.value for value in before.scraped if value.known}
    for value in mixed.scraped:
        if value.known and value.metric in known and objects.ScrapedMetric.FromString(value.metric).per_second:
            value.value = known[value.metric] + weight * (value.value - known[value.metric])
    return mixed


def measures_of(spec: objects.ServiceSpec) -> list[Measure]:
    """All that the service is scaled by."""
    scale, resources = spec.autoscale, spec.resources
    found = []
    cpu_millis = resources.cpu_reserved_millis or resources.cpu_limit_millis
    if scale.cpu_percent and cpu_millis:
        found.append(Measure("cpu", cpu_millis * scale.cpu_percent / 100, _cpu, lambda value: cpu_text(round(value))))
    memory_bytes = resources.memory_reserved_bytes or resources.memory_limit_bytes
    if scale.memory_percent and memory_bytes:
        target = memory_bytes * scale.memory_percent / 100
        found.append(Measure("memory", target, _memory, lambda value: bytes_text(round(value))))
    if scale.connections:
        found.append(Measure("connections", float(scale.connections), _connections, number_text))
    if scale.HasField("metric"):
        metric = scale.metric
        name = metric.name + (" a second" if metric.per_second else "")
        target = metric.target_thousandths / 1000
        found.append(Measure(name, target, lambda load: value_in(load, metric), number_text, metric))
    return found


def loads_of(service: objects.Service, tasks: Sequence[objects.Task], loads: Mapping[str, TaskLoad]) -> list[Load]:
    """Each measure of a service with these tasks.

    Tasks that are starting count as not known: what they use then says nothing. Those that are not ready any more do
    count, since too much load may be why. Two tasks of a slot, of which one replaces the other, are one.
    """
    counted = [task for task in tasks if alive(task) and gets_traffic(service, task) and _tells(task)]
    found = []
    for measure in measures_of(service.spec):
        slots: dict[int, float | None] = {}
        problem = ""
        for task in counted:
            load = loads.get(task.meta.id)
            value = None if load is None else measure.read(load)
            if value is None and load is not None and measure.metric is not None:
                problem = problem or problem_in(load, measure.metric)
            if value is not None:
                slots[task.slot] = (slots.get(task.slot) or 0.0) + value
        values = [slots.get(slot) for slot in range(1, service.spec.replicas + 1)]
        found.append(Load(measure, values, problem))
    return found


def _tells(task: objects.Task) -> bool:
    lost = task.status.state == objects.TASK_STATE_RUNNING and task.status.health == objects.HEALTH_NOT_READY
    return serving(task) or lost


def _cpu(load: TaskLoad) -> float | None:
    return float(load.cpu_millis) if load.cpu_known else None


def _memory(load: TaskLoad) -> float | None:
    return float(load.memory_bytes) or None


def _connections(load: TaskLoad) -> float | None:
    return float(load.clients) if load.clients_known else None


def number_text(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
