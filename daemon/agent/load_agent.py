"""Measures the tasks of services that are balanced or scaled by load, for the leader: it makes weights and numbers of
tasks of that."""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from daemon.agent.host_view import HostView
from daemon.agent.own_network import address_within
from daemon.agent.reports import Reports
from daemon.agent.scraping import Scraping, Source
from daemon.agent.task_load import connections_of, cpu_seconds_of, memory_bytes_of
from net.errors import NetworkError
from net.task_sockets import TaskSockets
from proto import objects_pb2 as objects
from proto.host_pb2 import TaskLoad

INTERVAL_S_MIN = 1.0
INTERVAL_S_MAX = 10.0  # what is older soon counts for nothing
SHARE_MAX = 0.02  # of a core, where that does not take longer
TASKS_MAX = 1_000  # measured on one host; the others keep an average weight, and count as not known


@dataclass(frozen=True)
class _Measured:
    task_id: str
    process_id: int
    scale: objects.Autoscale  # of its service; empty where it has none


class LoadAgent:
    """Does nothing while no service of this host is balanced or scaled by load."""

    def __init__(self, view: HostView, reports: Reports) -> None:
        self._view = view
        self._reports = reports
        self._cpu: dict[str, tuple[float, float]] = {}  # task id -> (when, CPU seconds until then)
        self._scraping = Scraping()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._scrape)
            while True:
                took_s = 0.0
                tasks = [
                    _Measured(task.meta.id, task.status.pid, frontend.autoscale) for task, frontend in self._tasks()
                ]
                loads: list[TaskLoad] = []
                if tasks:
                    loads, took_s = await trio.to_thread.run_sync(self._measure, tasks)
                for load in loads:
                    self._scraping.tell(load)
                self._reports.loads(loads)
                await trio.sleep(min(max(INTERVAL_S_MIN, took_s / SHARE_MAX), INTERVAL_S_MAX))

    async def _scrape(self) -> None:
        while True:
            await self._scraping.run_once(
                Source(task.meta.id, task.status.pid, address_within(task), frontend.scraped)
                for task, frontend in self._tasks()
                if frontend.scraped
            )
            await trio.sleep(INTERVAL_S_MIN)

    def _tasks(self) -> list[tuple[objects.Task, objects.Frontend]]:
        """The tasks to measure, with their service as this host knows it."""
        services = {
            item.frontend.service_id: item.frontend
            for _, item in self._view.items_of("frontend")
            if item.frontend.HasField("autoscale")
            or item.frontend.scraped
            or item.frontend.balance.policy == objects.BALANCE_POLICY_LEAST_LOADED
        }
        if not services:
            return []
        running = [
            (task, services[task.service_id])
            for task in self._view.tasks
            if task.service_id in services and task.status.state == objects.TASK_STATE_RUNNING and task.status.pid
        ]
        return running[:TASKS_MAX]

    def _measure(self, tasks: list[_Measured]) -> tuple[list[TaskLoad], float]:
        """(loads, CPU seconds that it took)."""
        began_s = time.thread_time()
        loads = []
        before, self._cpu = self._cpu, {}
        for task in tasks:
            now_s = time.monotonic()
            connections, cpu_s = connections_of(task.process_id), cpu_seconds_of(task.process_id)
            if connections is None:
                continue
            load = TaskLoad(task_id=task.task_id, connections=connections)
            if cpu_s is not None:
                self._cpu[task.task_id] = (now_s, cpu_s)
                since_s, used_s = before.get(task.task_id, (now_s, cpu_s))
                if now_s > since_s:
                    load.cpu_millis = max(round(1000 * (cpu_s - used_s) / (now_s - since_s)), 0)
                    load.cpu_known = True
            _measure_more(task.process_id, task.scale, load)
            loads.append(load)
        return loads, time.thread_time() - began_s


def _measure_more(process_id: int, scale: objects.Autoscale, load: TaskLoad) -> None:
    """What takes longer to find out, and only scaling asks for."""
    if scale.memory_percent:
        load.memory_bytes = memory_bytes_of(process_id) or 0
    if scale.connections:
        try:
            with TaskSockets.within(process_id) as sockets:
                load.clients, load.clients_known = sockets.client_count(), True
        except (NetworkError, OSError):
            pass  # it has ended, or the kernel does not tell
