"""Whether the new tasks of a canary say that they are well: a look at a metric of theirs, or the share of two. Pure.

A share is of the sums over all new tasks, so that a quiet task does not count as much as a busy one; where nothing was
done as yet (the whole is 0) nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.orchestration.scraped_metrics import problem_in, value_in
from daemon.orchestration.task_states import serving
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad

MILLION = 1_000_000


@dataclass(frozen=True)
class Look:
    state: objects.CheckState.ValueType
    message: str  # in words


def look_at(service: objects.Service, tasks: Sequence[objects.Task], loads: Mapping[str, TaskLoad]) -> Look:
    """What the new tasks of a service say now; `loads` by task."""
    check = service.spec.rollout.check
    fresh = [task for task in tasks if serving(task) and task.generation == service.generation]
    known = [loads[task.meta.id] for task in fresh if task.meta.id in loads]
    values = [value for load in known if (value := value_in(load, check.metric)) is not None]
    name = check.metric.name + (" a second" if check.metric.per_second else "")
    if not values or len(values) < len(fresh):
        return _unknown(known, check.metric, f"{name} is known of {len(values)} of {len(fresh)} new tasks")
    if not check.HasField("of"):
        average, most = sum(values) / len(values), check.max_millionths / MILLION
        words = f"{name} of a new task is {average:.3g}, and may be {most:.3g}"
        return Look(objects.CHECK_STATE_BAD if average > most else objects.CHECK_STATE_GOOD, words)
    wholes = [value for load in known if (value := value_in(load, check.of)) is not None]
    if len(wholes) < len(fresh):
        return _unknown(known, check.of, f"{check.of.name} is known of {len(wholes)} of {len(fresh)} new tasks")
    if sum(wholes) <= 0:
        return Look(objects.CHECK_STATE_UNSPECIFIED, f"{check.of.name} of the new tasks is 0: they have nothing to do")
    share = sum(values) / sum(wholes)
    words = f"{name} of the new tasks is {100 * share:.3g}% of {check.of.name}"
    words += f", and may be {100 * check.max_millionths / MILLION:.3g}%"
    return Look(objects.CHECK_STATE_BAD if share * MILLION > check.max_millionths else objects.CHECK_STATE_GOOD, words)


def _unknown(known: Sequence[TaskLoad], metric: objects.ScrapedMetric, words: str) -> Look:
    problem = next((found for load in known if (found := problem_in(load, metric))), "")
    return Look(objects.CHECK_STATE_UNSPECIFIED, words + (f": {problem}" if problem else ""))
