"""A task's life on its host, with the work on containers played by a scripted host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from daemon.agent.task_runner import Readiness, TaskFailure, TaskRunner
from proto import objects_pb2 as objects
from runtime.model import ObservedContainer

RUN, STOP = objects.DESIRED_STATE_RUNNING, objects.DESIRED_STATE_STOPPED


class ScriptedHost:
    """Does at once what it is asked, and notes it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failure = ""
        self.withdrawn_now = True
        self.clean_up_failures = 0
        self.grace_ms = 0
        self.withdrawn_s = self.lingered_s = 0.0
        self.unhealthy = trio.Event()
        self._changed = trio.Event()

    async def start(self, task: objects.Task, progress: Callable[[str], None]) -> int:
        self.done.append("start")
        if self.failure:
            raise TaskFailure(self.failure)
        return 42

    async def wait_ready(
        self, task: objects.Task, pid: int, known: Readiness, report: Callable[[Readiness], None]
    ) -> None:
        report(Readiness(True))
        await self.unhealthy.wait()
        report(Readiness(False, objects.HEALTH_UNHEALTHY, "unhealthy: exit code 1"))

    async def stop(self, task: objects.Task) -> ObservedContainer | None:
        self.done.append("stop")
        self.grace_ms = task.spec.container.stop_grace_ms
        return ObservedContainer(task.meta.id, {}, "stopped", exit_code=143)

    async def clean_up(self, task: objects.Task) -> None:
        if self.clean_up_failures:
            self.clean_up_failures -= 1
            raise OSError("busy")
        self.done.append("clean up")

    def linger_s(self, task: objects.Task) -> float:
        self.withdrawn_s = trio.current_time()
        return 1.2

    async def wait_idle(self, task: objects.Task, pid: int) -> None:
        self.lingered_s = trio.current_time() - self.withdrawn_s
        self.done.append("idle")

    def withdrawn(self, task_id: str) -> bool:
        return self.withdrawn_now

    def changed(self) -> trio.Event:
        return self._changed


class Story:
    """A runner, and the states that it reported."""

    def __init__(self, state: objects.TaskState.ValueType = objects.TASK_STATE_ASSIGNED) -> None:
        self.host = ScriptedHost()
        self.states: list[str] = []
        task = objects.Task(desired=RUN, status=objects.TaskStatus(state=state))
        task.meta.id = task.meta.name = "web.1"
        self.task = task
        self.runner = TaskRunner(task, self.host, self._reported, lambda: 1_000, 5_000)

    def _reported(self, runner: TaskRunner) -> None:
        state = objects.TaskState.Name(runner.status.state).removeprefix("TASK_STATE_")
        words = state + ("+" if runner.status.ready else "") + (" gone" if runner.gone else "")
        if not self.states or self.states[-1] != words:
            self.states.append(words)

    async def until(self, words: str) -> None:
        with trio.fail_after(60):
            while words not in self.states:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.01)

    def ask_to_stop(self) -> None:
        stopped = objects.Task()
        stopped.CopyFrom(self.task)
        stopped.desired, stopped.desired_message = STOP, "scaled down"
        self.runner.update(stopped)


def run(story: Story, script: Callable[[Story], object]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(story.runner.run)
            await script(story)  # type: ignore[misc]
            with trio.fail_after(60):
                await story.runner.finished.wait()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_it_starts_serves_and_stops_when_asked() -> None:
    async def script(story: Story) -> None:
        await story.until("RUNNING+")
        story.ask_to_stop()

    story = Story()
    run(story, script)
    assert story.states == ["PREPARING", "RUNNING", "RUNNING+", "STOPPING", "EXITED", "EXITED gone"]
    assert story.host.done == ["start", "idle", "stop", "clean up"]
    assert story.host.lingered_s == pytest.approx(1.2)
    assert story.runner.status.message == "scaled down"


def test_it_waits_for_the_balancers_but_not_forever() -> None:
    async def script(story: Story) -> None:
        await story.until("RUNNING+")
        story.host.withdrawn_now = False
        asked_s = trio.current_time()
        story.ask_to_stop()
        await story.until("EXITED")
        assert 5 <= trio.current_time() - asked_s < 9

    run(Story(), script)


def test_what_cannot_start_fails_with_its_reason_and_is_cleaned_up() -> None:
    async def script(story: Story) -> None:
        await story.until("FAILED")

    story = Story()
    story.host.failure = "image web:1 cannot be had"
    story.host.clean_up_failures = 2
    run(story, script)
    assert story.runner.status.message == "image web:1 cannot be had"
    assert story.host.done == ["start", "clean up"]


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "state", "message"),
    [
        (0, False, "EXITED", "exit code 0"),
        (3, False, "FAILED", "exit code 3"),
        (137, True, "FAILED", "out of memory: it used more than its memory limit"),
    ],
)
def test_an_end_by_itself_is_told(exit_code: int, out_of_memory: bool, state: str, message: str) -> None:
    async def script(story: Story) -> None:
        await story.until("RUNNING+")
        story.runner.observe(
            ObservedContainer("web.1", {}, "stopped", exit_code=exit_code, out_of_memory=out_of_memory)
        )

    story = Story()
    run(story, script)
    assert story.states[-2:] == [state, f"{state} gone"]
    assert story.runner.status.message == message


def test_an_unhealthy_task_gets_no_traffic_and_ends_as_failed() -> None:
    async def script(story: Story) -> None:
        await story.until("RUNNING+")
        story.host.unhealthy.set()

    story = Story()
    run(story, script)
    assert story.states == ["PREPARING", "RUNNING", "RUNNING+", "RUNNING", "STOPPING", "FAILED", "FAILED gone"]
    assert "unhealthy" in story.runner.status.message


def test_a_running_container_is_adopted_and_a_vanished_one_is_told() -> None:
    async def adopt(story: Story) -> None:
        await story.until("RUNNING+")
        story.ask_to_stop()

    adopted = Story(objects.TASK_STATE_RUNNING)
    adopted.runner.observe(ObservedContainer("web.1", {}, "running", pid=7))
    run(adopted, adopt)
    assert adopted.host.done == ["idle", "stop", "clean up"]

    async def nothing(story: Story) -> None:
        await story.until("FAILED")

    vanished = Story(objects.TASK_STATE_RUNNING)
    run(vanished, nothing)
    assert "its container is gone" in vanished.runner.status.message


@pytest.mark.parametrize("state", [objects.TASK_STATE_LOST, objects.TASK_STATE_STOPPING])
def test_a_daemon_that_was_away_does_not_end_what_its_own_balancer_still_sends_to(
    state: objects.TaskState.ValueType,
) -> None:
    async def script(story: Story) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert story.host.done == []
        story.host.withdrawn_now = True
        story.host.changed().set()

    story = Story(state)
    story.host.withdrawn_now = False
    story.runner.observe(ObservedContainer("web.1", {}, "running", pid=7))
    story.ask_to_stop()
    run(story, script)
    assert story.host.done == ["idle", "stop", "clean up"]


def test_an_operator_ends_it_as_if_it_had_ended_by_itself() -> None:
    async def script(story: Story) -> None:
        assert not story.runner.end_for_operator(0)  # it has not started
        await story.until("RUNNING+")
        assert story.runner.end_for_operator(250)
        await story.runner.over.wait()
        assert story.runner.status.exit_code == 143
        assert not story.runner.end_for_operator(0)
        await story.until("EXITED")

    story = Story()
    run(story, script)
    assert story.states == ["PREPARING", "RUNNING", "RUNNING+", "STOPPING", "EXITED", "EXITED gone"]
    assert story.runner.status.message == "stopped by an operator"
    assert story.host.grace_ms == 250
    assert story.task.spec.container.stop_grace_ms == 0
