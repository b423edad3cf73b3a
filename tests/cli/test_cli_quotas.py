"""`quota set`, `ls`, `show` and `rm`: what is asked and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cli.failure import EXIT_OK, EXIT_USAGE
from proto import control_pb2, objects_pb2
from tests.cli.control_server import ControlServer

Run = Callable[..., Any]
VIEW = control_pb2.QuotaView(
    tenant="team-a",
    quota=objects_pb2.Quota(tasks=2, memory_reserved_bytes=1 << 30),
    used=objects_pb2.Quota(
        tasks=3, cpu_reserved_millis=500, memory_reserved_bytes=1 << 29, published_ports=1, volumes=0
    ),
)


def test_set_sends_what_is_said_and_takes_away_what_is_none(server: ControlServer, fairway: Run) -> None:
    server.on("SetQuota", control_pb2.SetQuotaReply(quota=VIEW))
    ended = fairway("quota", "set", "team-a", "--tasks", "0", "--cpu", "1.5", "--memory", "64m", "--volumes", "none")
    assert ended.code == EXIT_OK
    (request,) = server.asked("SetQuota")
    assert request.quota == objects_pb2.Quota(tasks=0, cpu_reserved_millis=1500, memory_reserved_bytes=64 << 20)
    assert list(request.unbound) == ["volumes"]
    assert "TASKS     3      2         more than allowed" in ended.out


def test_what_is_no_amount_is_wrong_usage(server: ControlServer, fairway: Run) -> None:
    for arguments in (["--tasks", "many"], ["--memory", "64x"], ["--cpu", "-1"], []):
        assert fairway("quota", "set", "team-a", *arguments).code == EXIT_USAGE
    assert not server.asked("SetQuota")


def test_lists_show_use_beside_bounds(server: ControlServer, fairway: Run) -> None:
    server.on("ListQuotas", control_pb2.ListQuotasReply(quotas=[VIEW]))
    listed = fairway("quota", "ls")
    assert listed.out.splitlines()[1].split() == ["team-a", "3/2", "0.5", "512M/1G", "1", "0"]
    assert fairway("quota", "ls", "-q").out == "team-a\n"
    (plain,) = json.loads(fairway("quota", "ls", "-o", "json").out)
    assert (plain["quota"]["tasks"], plain["quota"]["volumes"], plain["used"]["volumes"]) == (2, None, 0)
    assert "more than allowed" in fairway("quota", "show", "team-a").out


def test_rm_asks_for_it(server: ControlServer, fairway: Run) -> None:
    server.on("RemoveQuota", control_pb2.RemoveQuotaReply(quota=VIEW))
    assert fairway("quota", "rm", "team-a").code == EXIT_OK
    assert server.asked("RemoveQuota")[0].tenant == "team-a"
