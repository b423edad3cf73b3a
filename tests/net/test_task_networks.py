"""Work on tasks' interfaces: some at once, never two on one task, none beside what looks at all."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from net.task_interfaces import TaskInterfaces
from net.task_networks import AT_ONCE_MAX, TaskNetworks

DEADLINE_SECONDS = 60.0


class Work:
    """Counts how many run at once; each waits until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, interfaces: TaskInterfaces) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.let_go.wait(DEADLINE_SECONDS)
        with self._lock:
            self.running -= 1
        return id(interfaces)


def run(main: Callable[[TaskNetworks], Awaitable[None]], folder: Path) -> None:
    with closing(TaskNetworks(folder, "fw")) as networks:
        trio.run(main, networks)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await trio.sleep(0.002)


def test_several_tasks_at_once_but_not_all(tmp_path: Path) -> None:
    async def main(networks: TaskNetworks) -> None:
        work = Work()
        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE_MAX + 3):
                nursery.start_soon(networks.with_one, str(number), work)
            await until(lambda: work.running == AT_ONCE_MAX)
            work.let_go.set()
        assert work.most == AT_ONCE_MAX

    run(main, tmp_path)


def test_one_thing_at_a_time_for_one_task(tmp_path: Path) -> None:
    async def main(networks: TaskNetworks) -> None:
        same, other = Work(), Work()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(networks.with_one, "a", same)
            nursery.start_soon(networks.with_one, "b", other)
            await until(lambda: same.running == 1 and other.running == 1)
            same.let_go.set()
            other.let_go.set()
        assert same.most == 1

    run(main, tmp_path)


def test_what_looks_at_all_runs_alone(tmp_path: Path) -> None:
    async def main(networks: TaskNetworks) -> None:
        one, everything = Work(), Work()
        seen: list[int] = []

        def look(interfaces: TaskInterfaces) -> None:
            seen.append(one.running)
            everything(interfaces)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(networks.with_one, "a", one)
            await until(lambda: one.running == 1)
            for _ in range(2):
                nursery.start_soon(networks.with_all, look)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(networks.with_one, "b", one)
            assert seen == []
            one.let_go.set()
            everything.let_go.set()
        assert seen == [0, 0]
        assert everything.most == 1

    run(main, tmp_path)


def test_who_waits_for_admission_goes_on_when_it_comes(tmp_path: Path) -> None:
    async def main(networks: TaskNetworks) -> None:
        passed: list[str] = []

        async def wait(task_id: str) -> None:
            await networks.admitted(task_id)
            passed.append(task_id)

        async with trio.open_nursery() as nursery:
            for task_id in ("a", "b"):
                nursery.start_soon(wait, task_id)
            networks.admit({"a"})
            await trio.testing.wait_all_tasks_blocked()
            assert passed == ["a"]
            networks.admit({"b"})
            await trio.testing.wait_all_tasks_blocked()
            assert passed == ["a", "b"]

    run(main, tmp_path)


def test_a_failure_is_the_callers_and_the_place_is_free_again(tmp_path: Path) -> None:
    async def main(networks: TaskNetworks) -> None:
        def fail(_: TaskInterfaces) -> None:
            raise ValueError("no")

        for _ in range(AT_ONCE_MAX + 1):
            with pytest.raises(ValueError, match="no"):
                await networks.with_one("a", fail)
        assert await networks.with_all(lambda _: "fine") == "fine"

    run(main, tmp_path)
