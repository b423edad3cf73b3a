"""Measures the tasks of services that are balanced by load, for the leader, which makes weights of it."""

from __future__ import annotations

import time

import trio

from daemon.agent.host_view import HostView
from daemon.agent.reports import Reports
from daemon.agent.task_load import connections_of, cpu_seconds_of
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad

INTERVAL_S_MIN = 1.0
SHARE_MAX = 0.02  # of a core
TASKS_MAX = 1_000  # measured on one host; the others keep an average weight


class LoadAgent:
    """Does nothing while no service of this host is balanced by load."""

    def __init__(self, view: HostView, reports: Reports) -> None:
        self._view = view
        self._reports = reports
        self._cpu: dict[str, tuple[float, float]] = {}  # task id -> (when, CPU seconds until then)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started_s = trio.current_time()
            tasks = self._tasks()
            loads = await trio.to_thread.run_sync(self._measure, tasks) if tasks else []
            self._reports.loads(loads)
            took_s = trio.current_time() - started_s
            await trio.sleep(max(INTERVAL_S_MIN, took_s / SHARE_MAX))

    def _tasks(self) -> list[tuple[str, int]]:
        """(id, process) of the tasks to measure."""
        services = {
            item.frontend.service_id
            for _, item in self._view.items_of("frontend")
            if item.frontend.balance.policy == objects.BALANCE_POLICY_LEAST_LOADED
        }
        if not services:
            return []
        running = [
            (task.meta.id, task.status.pid)
            for task in self._view.tasks
            if task.service_id in services and task.status.state == objects.TASK_STATE_RUNNING and task.status.pid
        ]
        return running[:TASKS_MAX]

    def _measure(self, tasks: list[tuple[str, int]]) -> list[TaskLoad]:
        loads = []
        before, self._cpu = self._cpu, {}
        for task_id, process_id in tasks:
            now_s = time.monotonic()
            connections, cpu_s = connections_of(process_id), cpu_seconds_of(process_id)
            if connections is None:
                continue
            load = TaskLoad(task_id=task_id, connections=connections)
            if cpu_s is not None:
                self._cpu[task_id] = (now_s, cpu_s)
                since_s, used_s = before.get(task_id, (now_s, cpu_s))
                if now_s > since_s:
                    load.cpu_millis = max(round(1000 * (cpu_s - used_s) / (now_s - since_s)), 0)
            loads.append(load)
        return loads
