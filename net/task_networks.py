"""Interfaces of tasks from trio: a few at a time, one at a time per task, and none while all are checked.

Making one is work for a CPU (3 ms), so doing several at once gains nothing; removing one is 30 ms of waiting for the
kernel (RCU), which neither other removals nor new tasks should wait for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from net.task_interfaces import TaskInterfaces

AT_ONCE_MAX = 4
T = TypeVar("T")


class TaskNetworks:
    """Runs work on `TaskInterfaces` in worker threads; each running piece has a netlink socket of its own."""

    def __init__(self, run_folder: Path, prefix: str) -> None:
        self._run_folder = run_folder
        self._prefix = prefix
        self._seats = trio.Semaphore(AT_ONCE_MAX, max_value=AT_ONCE_MAX)
        self._idle: list[TaskInterfaces] = []
        self._gathering = trio.Lock()
        self._busy: dict[str, trio.Lock] = {}
        self._admitted: Collection[str] = ()
        self._admission = trio.Event()

    def close(self) -> None:
        """Of what is idle; repeatable, and work may go on afterwards."""
        while self._idle:
            self._idle.pop().close()

    def admit(self, task_ids: Collection[str]) -> None:
        """The rules of this host let others reach these tasks, and no others."""
        self._admitted = task_ids
        self._admission.set()
        self._admission = trio.Event()

    async def admitted(self, task_id: str) -> None:
        """Returns when a task was admitted."""
        while task_id not in self._admitted:
            await self._admission.wait()

    async def with_one(self, task_id: str, work: Callable[[TaskInterfaces], T]) -> T:
        """For work on one task only; raises what `work` raises."""
        async with self._alone_with(task_id), self._seats:
            return await self._run(work)

    async def with_all(self, work: Callable[[TaskInterfaces], T]) -> T:
        """For work that looks at every task: nothing else runs meanwhile."""
        # Two that each hold some of the seats would wait for one another.
        async with self._gathering, AsyncExitStack() as seats:
            for _ in range(AT_ONCE_MAX):
                await seats.enter_async_context(self._seats)
            return await self._run(work)

    @asynccontextmanager
    async def _alone_with(self, task_id: str) -> AsyncIterator[None]:
        lock = self._busy.setdefault(task_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            statistics = lock.statistics()
            if not statistics.locked and not statistics.tasks_waiting:
                self._busy.pop(task_id, None)

    async def _run(self, work: Callable[[TaskInterfaces], T]) -> T:
        interfaces = self._idle.pop() if self._idle else TaskInterfaces(self._run_folder, self._prefix)
        try:
            return await trio.to_thread.run_sync(work, interfaces)
        finally:
            self._idle.append(interfaces)
