"""One run: an empty cluster, the apps, a warm-up, rounds with inventories in between, and the empty cluster again."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.cluster import Lab
from tests.churn import inventory, judging
from tests.churn.counting import TaskCounter
from tests.churn.inventory import Inventory
from tests.churn.operator import Operator
from tests.churn.workload import Size, Workload

# Connections of addresses that are nobody's are found by the second of two sweeps (net/connections_sweep.py).
SETTLE_SECONDS_MAX = 90.0
POLL_SECONDS = 1.0
WARM_UP_SHARE = 0.1  # of the tasks
WARM_UP_TIME_SHARE = 0.25

Say = Callable[[str], None]


@dataclass
class Result:
    """Inventories by title, in order, and what was found wrong, in words."""

    started: int = 0
    stopped: int = 0
    seconds: float = 0.0
    inventories: list[tuple[str, Inventory]] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def churn(
    lab: Lab,
    tasks: int,
    name: str,
    port: int,
    size: Size,
    checks: int,
    say: Say,
    *,
    seconds_max: float = math.inf,
    judge_memory: bool = True,
) -> Result:
    """Starts and stops `tasks` tasks under apps whose names begin with `name`, and looks `checks` times. After
    `seconds_max` it comes to its end with as many as there were.

    The lab must have workload.IMAGES, and nothing else may change in it meanwhile. Raises Stuck.
    """
    result = Result()
    began = time.monotonic()
    operator = Operator(lab.socket(lab.hosts()[0]))
    counter = TaskCounter(lab.socket(lab.hosts()[0]))
    workload = Workload(lab, operator, name, port, size, random.Random(tasks))
    try:
        due = [max(1, round(tasks * WARM_UP_SHARE))]
        due += [due[0] + round((tasks - due[0]) * (number + 1) / checks) for number in range(checks)]
        # Hosts unpack images, make folders and chains when they first need them, and keep them.
        with workload.deployed():
            _round_until(workload, counter, due[0], began + seconds_max * WARM_UP_TIME_SHARE, say)
        empty, _ = _settled(lab, operator, None, 0)
        result.inventories.append(("empty", empty))
        with workload.deployed(), workload.traffic():
            first: Inventory | None = None
            for target in due:
                late = time.monotonic() - began > seconds_max
                if first is not None and target < due[-1] and (late or counter.stopped >= target):
                    continue  # a round may go past several
                if first is not None:
                    _round_until(workload, counter, target, began + seconds_max, say)
                found, words = _settled(lab, operator, first, sum(workload.base.values()))
                result.inventories.append((str(counter.stopped), found))
                result.leaks += [f"after {counter.stopped} tasks: {each}" for each in words]
                say(f"{counter.stopped} tasks started and stopped; {'; '.join(words) or 'nothing has grown'}")
                first = first or found
            if judge_memory:
                result.leaks += judging.grown_memory([each for _, each in result.inventories[1:]])
        found, words = _settled(lab, operator, empty, 0)
        result.inventories.append(("empty again", found))
        result.leaks += [f"after all apps were removed: {each}" for each in words]
        result.started, result.stopped = counter.started, counter.stopped
    finally:
        counter.stop()
        operator.close()
    result.seconds = time.monotonic() - began
    return result


def _round_until(workload: Workload, counter: TaskCounter, target: int, deadline: float, say: Say) -> None:
    def enough() -> bool:
        return counter.stopped >= target or time.monotonic() > deadline

    while not enough():
        before, began = counter.stopped, time.monotonic()
        workload.round(enough)
        workload.settle()
        seconds = time.monotonic() - began
        say(f"{counter.stopped} of {target}: {(counter.stopped - before) / seconds:.1f} tasks a second")


def _look(lab: Lab, operator: Operator) -> Inventory:
    return inventory.take(lab, operator.tasks(), operator.nodes(), operator.leader())


def _settled(lab: Lab, operator: Operator, first: Inventory | None, slots: int) -> tuple[Inventory, list[str]]:
    """An inventory in which nothing has grown, or the last of the time, with what has: some things go a moment later.

    The first one has nothing to be compared with: it is taken when two in a row are alike in what is counted.
    """
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    before = _look(lab, operator)
    while True:
        time.sleep(POLL_SECONDS)
        now = _look(lab, operator)
        words = judging.leaks(first or before, now, slots)
        steady = first is not None or not judging.leaks(now, before, slots)
        if (not words and steady) or time.monotonic() > deadline:
            return now, words
        before = now
