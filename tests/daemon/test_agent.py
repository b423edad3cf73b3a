"""What an agent makes of looks at its host: of containers that are gone meanwhile, and once it was removed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from daemon.agent.agent import OLDER_REFUSED_S, Agent
from daemon.agent.host_view import HostView
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from runtime.model import ObservedContainer


class Runner:
    """Takes what the agent says of its task, and is gone when the test says so."""

    def __init__(self) -> None:
        self.task = objects.Task(meta=objects.Meta(id="a", name="web.1"))
        self.told: list[objects.Task | None] = []
        self.gone = False
        self.finished = trio.Event()

    def update(self, task: objects.Task | None) -> None:
        self.told.append(task)

    async def run(self) -> None:
        self.gone = True

    def observe_listed(self, container: ObservedContainer | None) -> None:
        pass


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


def test_what_is_removed_while_containers_are_listed_is_not_removed_again() -> None:
    """The runner was through with it, and the leader forgot its task, before the list arrived that still has it."""

    async def main() -> None:
        listed = [ObservedContainer(name, {}, "stopped") for name in ("a", "b")]
        on_its_way = trio.Event()

        async def containers() -> list[ObservedContainer]:
            await on_its_way.wait()
            return listed

        async with trio.open_nursery() as nursery:
            runner = Runner()
            agent = agent_with(runner.task, runner, nursery)
            agent._runtime = SimpleNamespace(list=containers)  # type: ignore[assignment]
            started: list[str] = []
            agent._start_runner = lambda task: started.append(task.meta.id)  # type: ignore[method-assign]
            nursery.start_soon(agent._list)
            await trio.testing.wait_all_tasks_blocked()
            agent.view.apply(host.HostState(complete=True, revision=2))
            agent._reports = SimpleNamespace(forget_task=lambda _: None)  # type: ignore[assignment]
            agent._logs = SimpleNamespace(changed=lambda: None)  # type: ignore[assignment]
            await agent._run_task(runner)  # type: ignore[arg-type]
            on_its_way.set()
            await trio.testing.wait_all_tasks_blocked()
            assert started == ["b"], "only b is a container that nobody claims"

    trio.run(main)


def test_nothing_is_begun_by_a_state_that_was_saved() -> None:
    """It may be older than the end of the task: its volume was removed, and would be there again for ever."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            runner = Runner()
            agent = agent_with(runner.task, runner, nursery)
            put = []
            for name, state in (("new", objects.TASK_STATE_ASSIGNED), ("ran", objects.TASK_STATE_RUNNING)):
                task = objects.Task(meta=objects.Meta(id=name), status=objects.TaskStatus(state=state))
                put.append(host.HostItem(key=f"task/{name}", task=task))
            saved = host.HostState(complete=True, revision=2, put=put)
            started: list[str] = []
            agent._start_runner = lambda task: started.append(task.meta.id)  # type: ignore[method-assign]
            agent.view.restore(saved)
            agent._saved_counts = True
            agent._reconcile()
            assert started == ["ran"]
            agent.view.apply(saved)
            agent._reconcile()
            assert "new" in started

    trio.run(main)


def test_a_leader_that_stands_before_what_is_known_is_not_heard_for_a_while() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            runner = Runner()
            agent = agent_with(runner.task, runner, nursery)
            agent._start_runner = lambda task: None  # type: ignore[method-assign]
            agent._images = agent._volumes = agent._network = SimpleNamespace(changed=lambda: None)  # type: ignore
            agent._logs = SimpleNamespace(changed=lambda: None)  # type: ignore[assignment]
            newer, older = (
                host.HostInstruction(state=host.HostState(complete=True, revision=number)) for number in (20, 10)
            )
            await agent.instructed(newer)
            with pytest.raises(ConnectionAbortedError, match="revision 10, and another one was at 20"):
                await agent.instructed(older)
            assert agent.view.revision == 20
            await trio.sleep(OLDER_REFUSED_S + 1)
            await agent.instructed(older)  # the cluster was put back to it
            assert agent.view.revision == 10

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
