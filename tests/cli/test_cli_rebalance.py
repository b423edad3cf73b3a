"""`rebalance`: what is asked, followed and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cli.commands import rebalance
from cli.failure import EXIT_OK, EXIT_TIMED_OUT, EXIT_USAGE
from proto import control_pb2, objects_pb2
from tests.cli.control_server import ControlServer

Run = Callable[..., Any]
MOVE = control_pb2.PlannedMove(
    task="shop/web.6", from_node="host-1", to_node="host-3", why="host-1 has 3, host-3 has 0"
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "POLL_SECONDS", 0.01)


def answers(server: ControlServer, *states: objects_pb2.Rebalancing) -> None:
    """To questions for the status one after the other, then the last for ever; the moves to all others."""
    left = list(states)

    def answer(request: control_pb2.RebalanceRequest, _context: object) -> control_pb2.RebalanceReply:
        if request.status_only:
            return control_pb2.RebalanceReply(state=left.pop(0) if len(left) > 1 else left[0])
        if request.HasField("settings"):
            return control_pb2.RebalanceReply(settings=request.settings)
        return control_pb2.RebalanceReply(moves=[MOVE], left_alone=["shop/db: its tasks keep data in volumes"])

    server.on("Rebalance", answer)


def test_a_dry_run_shows_the_moves_and_what_is_left_alone(server: ControlServer, fairway: Run) -> None:
    answers(server, objects_pb2.Rebalancing())
    ended = fairway("rebalance", "--dry-run", "shop/web")
    assert ended.code == EXIT_OK
    assert "shop/web.6   host-1   host-3   host-1 has 3, host-3 has 0" in ended.out
    assert "shop/db: its tasks keep data in volumes" in ended.out
    (request,) = server.asked("Rebalance")
    assert (request.target, request.plan_only) == ("shop/web", True)
    assert json.loads(fairway("rebalance", "--dry-run", "-o", "json").out)["moves"][0]["to_node"] == "host-3"


def test_it_is_followed_to_its_end(server: ControlServer, fairway: Run) -> None:
    going = objects_pb2.Rebalancing(asked=True, moves=1)
    answers(server, going, going, objects_pb2.Rebalancing(moves=1))
    ended = fairway("rebalance")
    assert ended.code == EXIT_OK
    assert "1 of 1 begun" in ended.out and "Rebalanced in" in ended.out
    answers(server, going)
    assert fairway("rebalance", "--timeout", "30ms").code == EXIT_TIMED_OUT
    assert fairway("rebalance", "--detach").code == EXIT_OK


def test_settings_that_are_not_named_stay(server: ControlServer, fairway: Run) -> None:
    kept = control_pb2.RebalanceReply(settings=objects_pb2.RebalanceSettings(automatic=True, after_ms=5_000))
    server.on(
        "Rebalance",
        lambda request, _: (
            control_pb2.RebalanceReply(settings=request.settings) if request.HasField("settings") else kept
        ),
    )
    ended = fairway("rebalance", "--moves-per-minute", "4")
    assert ended.out == (
        "Tasks are moved without being asked for, when nothing has changed for 5s; at most 4 moves a minute.\n"
    )
    assert "only when that is asked for" in fairway("rebalance", "--automatic", "off").out
    assert fairway("rebalance", "--status").out.startswith("Tasks are moved")
    for wrong in (["--moves-per-minute", "0"], ["--automatic", "on", "shop/web"], ["--after", "soon"]):
        assert fairway("rebalance", *wrong).code == EXIT_USAGE
