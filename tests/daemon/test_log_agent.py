"""Which logs a host removes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from daemon.agent import log_agent
from daemon.agent.host_view import HostView
from daemon.agent.log_agent import LogAgent
from daemon.ids import new_id
from proto.host_pb2 import HostItem, HostState
from runtime.logs import TaskLogs
from runtime.model import RuntimeSettings

WAIT_S_MAX = 60.0


class Logs:
    """The part of a runtime that needs no containerd."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        settings = RuntimeSettings(folder / "socket", folder / "runc", folder / "logs", folder / "run")
        self._logs = TaskLogs(settings, nursery)

    async def logged_ids(self) -> list[str]:
        return list(await self._logs.ids())

    async def remove_logs(self, task_id: str) -> None:
        await self._logs.remove(task_id)


def named(*task_ids: str, names_logs: bool = True) -> HostState:
    items = [HostItem(key=f"log/{task_id}") for task_id in task_ids]
    return HostState(complete=True, revision=1, put=items, names_logs=names_logs)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S_MAX):
        while not condition():
            await trio.sleep(0.01)


def test_logs_of_forgotten_tasks_go_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_agent, "REST_S", 0.0)
    kept, forgotten, busy = new_id(), new_id(), new_id()
    folders = {name: tmp_path / "logs" / name for name in (kept, forgotten, busy, "not-a-task")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "000001.log").write_text("said\n")
    in_use = {busy}

    async def body() -> None:
        view = HostView()
        async with trio.open_nursery() as nursery:
            agent = LogAgent(Logs(tmp_path, nursery), view, in_use.__contains__)  # type: ignore[arg-type]
            nursery.start_soon(agent.run)
            view.apply(named(kept))
            agent.changed()
            await until(lambda: not folders[forgotten].exists())
            assert folders[kept].exists()
            assert folders[busy].exists()
            in_use.clear()
            agent.changed()
            await until(lambda: not folders[busy].exists())
            view.apply(HostState(revision=2, removed_keys=[f"log/{kept}"]))
            agent.changed()
            await until(lambda: not folders[kept].exists())
            assert folders["not-a-task"].exists()
            nursery.cancel_scope.cancel()

    trio.run(body)


@pytest.mark.parametrize("state", [None, named(names_logs=False)], ids=["no leader", "an older leader"])
def test_no_log_goes_before_a_leader_has_named_those_to_keep(tmp_path: Path, state: HostState | None) -> None:
    folder = tmp_path / "logs" / new_id()
    folder.mkdir(parents=True)

    async def body() -> None:
        view = HostView()
        view.restore(named())  # saved by the daemon before this one: another leader may know more
        if state is not None:
            view.apply(state)
        async with trio.open_nursery() as nursery:
            logs = Logs(tmp_path, nursery)
            agent = LogAgent(logs, view, lambda _: False)  # type: ignore[arg-type]
            await agent._remove_forgotten()
            assert folder.exists()
            view.apply(named())
            await agent._remove_forgotten()
            assert not folder.exists()
            nursery.cancel_scope.cancel()

    trio.run(body)
