"""What `fairway why` prints."""

from __future__ import annotations

import json
from collections.abc import Callable

from proto import objects_pb2, why_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer


def test_each_node_has_its_reasons_and_the_nearest_is_named(
    server: ControlServer, fairway: Callable[..., Ended]
) -> None:
    task = why_pb2.WhyTask(tasks=[f"shop/web.{number}" for number in range(1, 8)], reason="no host fits: ...")
    task.state = objects_pb2.TASK_STATE_PENDING
    task.hosts.add(node="host-2", against=[why_pb2.WhyNot(reason="is cordoned", remedy="activate host-2")])
    both = [why_pb2.WhyNot(reason="is down", remedy="bring it back"), why_pb2.WhyNot(reason="has no room")]
    task.hosts.add(node="host-1", against=both)
    running = why_pb2.WhyTask(tasks=["shop/web.8"], state=objects_pb2.TASK_STATE_RUNNING, node="host-3")
    server.on("Why", why_pb2.WhyReply(tasks=[task, running], left_out_count=2))
    ended = fairway("why", "shop/web")
    assert (ended.code, ended.err) == (0, "")
    assert [request.target for request in server.asked("Why")] == ["shop/web"]
    lines = ended.out.splitlines()
    assert lines[0].endswith("shop/web.5 and 2 more: pending: no host fits: ...")
    assert [line.split()[0] for line in lines[3:6]] == ["host-2", "host-1", "has"]
    assert "Nearest is host-2: activate host-2." in lines
    assert "shop/web.8: running on host-3" in lines
    assert lines[-1].startswith("2 more pending tasks")
    as_json = json.loads(fairway("why", "shop/web", "-o", "json").out)
    assert as_json["tasks"][0]["hosts"][1]["against"][0]["reason"] == "is down"


def test_a_service_of_which_nothing_is_wanted_says_so(server: ControlServer, fairway: Callable[..., Ended]) -> None:
    server.on("Why", why_pb2.WhyReply())
    assert fairway("why", "web").out == "no task of web is wanted\n"
