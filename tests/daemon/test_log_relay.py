"""Logs of several tasks, from hosts that come and go, to one operator."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import grpc
import pytest
import trio
import trio.testing

from daemon.api import log_relay
from daemon.api.log_relay import LogRelay
from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import host_pb2 as host
from proto import objects_pb2 as objects
from proto.host_pb2 import ReadLogRequest
from raft.store import Store
from raft.transaction import TransactionBuilder

MS = 1_000_000
Lost = ConnectionAbortedError("the host has gone")


def line(unix_ms: int, text: str) -> host.LogLine:
    return host.LogLine(unix_ns=unix_ms * MS, text=text.encode())


class Stream:
    def __init__(self, steps: Iterator[host.LogChunk | Exception]) -> None:
        self._steps = steps

    async def read(self) -> Any:
        step = next(self._steps, grpc.aio.EOF)
        if isinstance(step, Exception):
            raise step
        return step

    def cancel(self) -> None:
        pass


class Context:
    """Hosts whose calls of ReadLog answer as they are told, one after the other for each task."""

    def __init__(self, answers: dict[str, list[Sequence[list[host.LogLine] | Exception]]]) -> None:
        self._answers = answers
        self.asked: list[ReadLogRequest] = []

    def node(self, node_id: str) -> objects.Node:
        if node_id == "gone":
            raise Refused("host gone is down; it cannot be asked", Kind.UNAVAILABLE)
        return objects.Node(meta=objects.Meta(id=node_id, name=f"name of {node_id}"))

    def host(self, _: objects.Node) -> Any:
        return self

    def leading(self) -> None:
        pass

    def ReadLog(self, request: ReadLogRequest) -> Stream:
        asked = ReadLogRequest()
        asked.CopyFrom(request)
        self.asked.append(asked)
        steps = self._answers[request.task_id].pop(0)
        return Stream(iter([each if isinstance(each, Exception) else host.LogChunk(lines=each) for each in steps]))


def task(slot: int, node_id: str = "node") -> objects.Task:
    return objects.Task(
        meta=objects.Meta(id=f"task{slot}", name=f"web.{slot}", created_unix_ms=slot),
        app="shop",
        service="web",
        service_id="web",
        slot=slot,
        node_id=node_id,
        status=objects.TaskStatus(state=objects.TASK_STATE_RUNNING),
    )


def stored(tasks: Sequence[objects.Task]) -> Store:
    store, builder = Store(), TransactionBuilder()
    for each in tasks:
        builder.create(each)
    store.apply(builder.build("r", "test", 1), 1)
    return store


def relayed(
    context: Context, tasks: Sequence[objects.Task], request: control.LogsRequest, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    async def run() -> list[str]:
        seen: list[str] = []

        async def send(chunk: host.LogChunk) -> None:
            seen.extend(f"{chunk.app}/{chunk.task_name} {each.text.decode()}" for each in chunk.lines)

        with trio.move_on_after(60):
            await LogRelay(context, stored(tasks), request, send).run()  # type: ignore[arg-type]
        return seen

    async def direct(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    monkeypatch.setattr(log_relay, "call", direct)
    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_lines_of_several_tasks_come_in_the_order_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(
        {
            "task1": [([line(1, "a"), line(4, "d")], [line(5, "e"), line(9, "h")])],
            "task2": [([line(2, "b"), line(3, "c")], [line(6, "f")], [line(7, "g")])],
        }
    )
    tasks = [task(1), task(2), task(3, "gone")]
    seen = relayed(context, tasks, control.LogsRequest(target="web.1", targets=["web.2", "web.3"]), monkeypatch)
    assert [each.split()[-1] for each in seen[:-1]] == list("abcdefgh")
    assert seen[0] == "shop/web.1 a"
    assert seen[-1] == "shop/web.3 fairway: host gone is down; it cannot be asked"


def test_a_log_that_is_followed_goes_on_after_an_outage_with_each_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(
        {
            "task1": [
                ([line(1, "old"), line(2, "a"), line(2, "b")], Lost),
                (Lost,),
                ([line(2, "a"), line(2, "b"), line(2, "c"), line(3, "d")],),
            ]
        }
    )
    request = control.LogsRequest(target="web.1", follow=True, tail_lines=3)
    seen = relayed(context, [task(1)], request, monkeypatch)
    assert [each.split()[-1] for each in seen] == ["old", "a", "b", "c", "d"]
    assert [(each.tail_lines, each.since_unix_ms) for each in context.asked] == [(3, 0), (-1, 2), (-1, 2)]


def test_a_host_that_stays_away_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = relayed(Context({}), [task(1, "gone")], control.LogsRequest(target="web.1", follow=True), monkeypatch)
    assert seen == [
        "shop/web.1 fairway: host gone is down; it cannot be asked; the log goes on when its host answers again"
    ]
