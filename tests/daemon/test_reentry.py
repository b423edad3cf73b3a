"""A host whose part in its cluster ends and begins again is a member meanwhile, whoever asked and went away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from daemon.api.caller import Caller
from daemon.api.local_api import START_S_MAX, LocalApi
from daemon.config import Config, HostConfig
from daemon.errors import Refused
from daemon.fairwayd import Fairwayd
from daemon.identity.identity import Identity
from proto import control_pb2 as control


class Entered(Fairwayd):
    """Only notes that its part in a cluster begins."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        super().__init__(Config(host=HostConfig(state_folder=folder / "state", run_folder=folder / "run")))
        self._nursery = nursery
        self.began: list[Any] = []

    async def enter(self, identity: Any, first: Any) -> Any:
        self.began.append(identity)
        self.phase = "member"
        return identity


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> object:
    """What is found on disk."""
    found = object()
    monkeypatch.setattr(Identity, "load", lambda _folder: found)
    return found


def test_a_caller_that_goes_away_does_not_leave_the_host_without_its_part(tmp_path: Path, identity: object) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            host = Entered(tmp_path, nursery)
            goes_on = trio.Event()
            with trio.CancelScope() as caller:
                nursery.start_soon(_cancel_when_idle, caller)
                await host.reenter(goes_on.wait)
            assert caller.cancelled_caught
            assert host.phase == "starting"
            goes_on.set()
            await host.wait_started()
            assert (host.began, host.phase) == ([identity], "member")

    trio.run(main)


def test_what_fails_is_told_after_the_host_has_begun_again(tmp_path: Path, identity: object) -> None:
    async def refuse() -> None:
        raise Refused("the leader said no")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            host = Entered(tmp_path, nursery)
            with pytest.raises(Refused, match="the leader said no"):
                await host.reenter(refuse)
            assert (host.began, host.phase) == ([identity], "member")

    trio.run(main)


def test_a_member_that_is_just_starting_is_no_new_host(tmp_path: Path, identity: object) -> None:
    """To begin a cluster there would take the state of the one that it belongs to."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            host = Entered(tmp_path, nursery)
            api = LocalApi(host._config, host)
            state = tmp_path / "state" / "raft" / "log"
            state.parent.mkdir(parents=True)
            state.write_text("all that was agreed on")
            with trio.CancelScope() as caller:
                nursery.start_soon(_cancel_when_idle, caller)
                await host.reenter(trio.sleep_forever)
            status = await api.status(control.LocalStatusRequest(), Caller(None))
            assert status.phase == "starting"
            with pytest.raises(Refused, match="belongs to a cluster, and its fairwayd has not yet started"):
                await api.initialise(control.InitialiseRequest(), Caller(None))
            with pytest.raises(Refused, match="cannot join: this host belongs to a cluster"):
                await api.join(control.JoinClusterRequest(), Caller(None))
            assert state.read_text() == "all that was agreed on"
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(rate=START_S_MAX))


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
