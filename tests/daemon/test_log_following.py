"""A log that is followed from before its task runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from daemon.agent.host_view import HostView
from daemon.api import host_api
from daemon.api.caller import Caller
from daemon.api.host_api import HostApi, HostServices
from daemon.errors import Kind, Refused
from daemon.identity.certificates import PeerIdentity, PeerKind
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from runtime.errors import NotFound

NODE = Caller(PeerIdentity(PeerKind.NODE, "node-2"))


class Logs:
    """A runtime whose task has a log once it was made."""

    def __init__(self) -> None:
        self.made = False
        self.asked = trio.Event()

    def read_log(self, task_id: str, **_: Any) -> AsyncIterator[host.LogLine]:
        self.asked.set()
        if not self.made:
            raise NotFound(f"task {task_id} has no log on this host")
        return self._lines()

    async def _lines(self) -> AsyncIterator[host.LogLine]:
        yield host.LogLine(text=b"up")


def view(state: objects.TaskState.ValueType | None) -> HostView:
    made = HostView()
    if state is not None:
        task = objects.Task(meta=objects.Meta(id="a", name="web.1"), status=objects.TaskStatus(state=state))
        made.apply(host.HostState(complete=True, revision=1, put=[host.HostItem(key="task/a", task=task)]))
    return made


def served(logs: Logs, known: HostView) -> HostApi:
    return HostApi(HostServices(logs, known, lambda: None, lambda _: None, None, None, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [objects.TASK_STATE_ASSIGNED, None], ids=["assigned", "not heard of"])
def test_a_log_is_waited_for_until_its_task_runs(
    state: objects.TaskState.ValueType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_api, "TASK_NEWS_S_MAX", 60.0)

    async def body() -> None:
        logs = Logs()
        lines: list[bytes] = []

        async def send(chunk: host.LogChunk) -> None:
            lines.extend(line.text for line in chunk.lines)

        request = host.ReadLogRequest(task_id="a", follow=True, tail_lines=-1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served(logs, view(state)).read_log, request, NODE, send)
            await logs.asked.wait()
            logs.made = True
        assert lines == [b"up"]

    with_limit(body)


@pytest.mark.parametrize(
    ("follow", "state"), [(False, objects.TASK_STATE_ASSIGNED), (True, objects.TASK_STATE_FAILED), (True, None)]
)
def test_a_log_that_does_not_come_is_refused_in_words(
    follow: bool, state: objects.TaskState.ValueType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_api, "TASK_NEWS_S_MAX", 0.0)

    async def body() -> None:
        request = host.ReadLogRequest(task_id="a", follow=follow, tail_lines=-1)
        with pytest.raises(Refused, match="has no log on this host") as refused:
            await served(Logs(), view(state)).read_log(request, NODE, lambda _: trio.sleep(0))
        assert refused.value.kind is Kind.NOT_FOUND

    with_limit(body)


def with_limit(body: Any) -> None:
    async def run() -> None:
        with trio.fail_after(60):
            await body()

    trio.run(run)
