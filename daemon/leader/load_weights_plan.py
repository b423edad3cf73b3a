"""Weights of services that are balanced by load, from what hosts measure of their tasks. Pure.

A task's share goes down as its load goes up over the service's average. Weights have few steps and move only when the
load asks for clearly another one, so that a steady load writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad
from raft.store import Store
from raft.transaction import TransactionBuilder

STEPS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32)  # each about 1.4 times the one before
AVERAGE = 8
HYSTERESIS = 1.3  # the wanted weight differs from the present one by more than this factor
CHANGES_MAX = 500  # tasks in one transaction
CONNECTIONS_BASE = 2.0  # below so many more or less, tasks count as equally loaded
CPU_MILLIS_BASE = 50.0


def plan_weights(store: Store, loads: Mapping[str, TaskLoad]) -> TransactionBuilder:
    """`loads` by task, those that are fresh. No operations where nothing changes."""
    builder = TransactionBuilder()
    for service in store.table(objects.Service):
        if service.spec.balance.policy != objects.BALANCE_POLICY_LEAST_LOADED:
            continue
        tasks = [
            task
            for task in store.table(objects.Task).by("service", service.meta.id)
            if task.status.state == objects.TASK_STATE_RUNNING
        ]
        found = weights({task.meta.id: _load(loads.get(task.meta.id), service) for task in tasks}, _base(service))
        for task in tasks:
            weight = step(found[task.meta.id], task.status.balance_weight)
            if weight == task.status.balance_weight:
                continue
            if len(builder) >= CHANGES_MAX:
                return builder
            after = objects.Task()
            after.CopyFrom(task)
            after.status.balance_weight = weight
            builder.update(after)
    return builder


def weights(loads: Mapping[str, float | None], base: float) -> dict[str, float]:
    """Wanted weights: the average load gets AVERAGE, twice as much about half of it; None (not known): average."""
    known = [load for load in loads.values() if load is not None]
    average = sum(known) / len(known) if known else 0.0
    return {
        task_id: AVERAGE * (average + base) / ((average if load is None else load) + base)
        for task_id, load in loads.items()
    }


def step(wanted: float, present: int) -> int:
    """The step nearest to `wanted`, or `present` where that is near enough. A task without a weight gets one."""
    if present and present / HYSTERESIS < wanted < present * HYSTERESIS:
        return present
    return min(STEPS, key=lambda each: max(each / wanted, wanted / each))


def _load(load: TaskLoad | None, service: objects.Service) -> float | None:
    if load is None:
        return None
    by_cpu = service.spec.balance.load == objects.LOAD_MEASURE_CPU
    return float(load.cpu_millis if by_cpu else load.connections)


def _base(service: objects.Service) -> float:
    return CPU_MILLIS_BASE if service.spec.balance.load == objects.LOAD_MEASURE_CPU else CONNECTIONS_BASE
