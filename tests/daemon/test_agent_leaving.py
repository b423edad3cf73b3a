"""A host that was removed from its cluster stops its tasks, whatever its view of before still says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from daemon.agent.agent import Agent
from daemon.agent.host_view import HostView
from proto import host_pb2 as host
from proto import objects_pb2 as objects


class Runner:
    """Takes what the agent says of its task, and is gone when the test says so."""

    def __init__(self) -> None:
        self.told: list[objects.Task | None] = []
        self.gone = False
        self.finished = trio.Event()

    def update(self, task: objects.Task | None) -> None:
        self.told.append(task)


def agent_with(task: objects.Task, runner: Runner, nursery: trio.Nursery) -> Agent:
    view = HostView()
    view.apply(host.HostState(complete=True, revision=1, put=[host.HostItem(key="task/a", task=task)]))
    idle: Any = SimpleNamespace(changed=lambda: None)
    agent = Agent(idle, idle, idle, idle, idle, view, idle, None, str, int, 1_000)  # type: ignore[arg-type]
    agent._runners["a"] = runner  # type: ignore[assignment]
    agent._containers_known, agent._nursery = True, nursery
    return agent


def test_a_look_at_the_host_does_not_start_again_what_a_removed_host_stops() -> None:
    async def main() -> None:
        task = objects.Task(meta=objects.Meta(id="a", name="web.1"), desired=objects.DESIRED_STATE_RUNNING)
        runner = Runner()
        async with trio.open_nursery() as nursery:
            agent = agent_with(task, runner, nursery)
            agent._reconcile()
            assert runner.told == [task]
            assert not agent.withdrawn("a")
            nursery.start_soon(agent.stop_all)
            await trio.testing.wait_all_tasks_blocked()
            agent._reconcile()  # as each listing of the containers asks for
            assert runner.told == [task, None]
            assert agent.withdrawn("a"), "nobody tells a removed host that it is withdrawn"
            runner.finished.set()

    trio.run(main)
