"""A task that somebody ran and is at: its start waits for them, and their going ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from daemon.agent.attachments import ATTACH_S_MAX, GONE, Attachments
from daemon.agent.task_runner import TaskFailure


def drive(body: Callable[[Attachments], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(1000):
            await body(Attachments())

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_the_start_waits_until_somebody_has_attached_and_the_end_until_they_have_gone() -> None:
    async def body(attachments: Attachments) -> None:
        steps: list[str] = []

        async def task() -> None:
            await attachments.wait_attached("a")
            steps.append("started")
            await attachments.wait_gone("a")
            steps.append("ended")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await attachments.of("a").made.wait()
            await trio.sleep(ATTACH_S_MAX / 2)
            assert steps == []
            attachments.of("a").attached.set()
            await trio.sleep(2 * ATTACH_S_MAX)
            assert steps == ["started"]
            attachments.of("a").gone.set()
        assert steps == ["started", "ended"]

    drive(body)


def test_a_task_that_nobody_attaches_to_does_not_start() -> None:
    async def body(attachments: Attachments) -> None:
        with pytest.raises(TaskFailure, match="nobody has attached to it within 60 s"):
            await attachments.wait_attached("a")
        attachments.of("b").gone.set()  # its client was there before the container, and has gone
        with pytest.raises(TaskFailure, match=GONE):
            await attachments.wait_attached("b")

    drive(body)


def test_after_a_restart_of_the_daemon_nobody_is_attached() -> None:
    async def body(attachments: Attachments) -> None:
        await attachments.wait_gone("a")
        attachments.of("b")  # a client that comes back is too late: it was not at its start
        await attachments.wait_gone("b")

    drive(body)


def test_who_waits_for_a_task_that_fails_learns_why() -> None:
    async def body(attachments: Attachments) -> None:
        attachment = attachments.of("a")
        attachments.failed("a", "no such image")
        assert attachment.over.is_set()
        assert attachment.problem == "no such image"
        later = attachments.of("b")
        attachments.forget("b")
        assert later.over.is_set()
        attachments.failed("unknown", "x")
        attachments.forget("unknown")
        assert not attachments.of("b").over.is_set()

    drive(body)
