"""A host gives an image up only when no task of it needs it and those who keep it have shown that they have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.reports import Reports
from daemon.garbage.room import Room
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState

DIGEST = "sha256:" + "a" * 64
BLOBS = [DIGEST, "sha256:" + "b" * 64]


class Images:
    """What of ImageStore and ImageSpaces is asked."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.packed: list[str] = []

    async def list(self) -> Sequence[Any]:
        return []

    async def blobs(self, digest: str) -> Sequence[str]:
        assert digest == DIGEST
        return BLOBS

    async def remove(self, digest: str) -> None:
        self.removed.append(digest)

    async def pack(self, digest: str) -> None:
        self.packed.append(digest)


class Agent(ImageAgent):
    """One whose other hosts have the image, but for those in `without`; `asked` runs while they answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, without: set[str] | None = None) -> None:
        self.images, self.view, self.room = Images(), HostView(), Room(85, 75)
        store: Any = self.images
        super().__init__(store, store, self.view, None, Reports(), self.room, "own")  # type: ignore[arg-type]
        self.asked: Callable[[], None] = lambda: None

        async def holds(_view: HostView, _peers: object, node_id: str, digests: list[str]) -> bool:
            assert digests == BLOBS
            self.asked()
            return node_id not in (without or ())

        monkeypatch.setattr("daemon.agent.image_agent.holds", holds)

    def need(self) -> None:
        task = objects.Task(image_digest=DIGEST)
        task.meta.id = "t1"
        self.view.apply(HostState(complete=True, revision=1, put=[HostItem(key="task/t1", task=task)]))


def test_it_goes_where_others_have_it_and_is_not_fetched_ahead_again(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    assert trio.run(agent.give_up, DIGEST, ["b", "c"])
    assert agent.images.removed == [DIGEST] and agent.room.given_up == {DIGEST}


def test_it_stays_where_one_of_them_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch, without={"c"})
    assert not trio.run(agent.give_up, DIGEST, ["b", "c"])
    assert not agent.images.removed and not agent.room.given_up


def test_it_stays_where_a_task_needs_it_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    agent.asked = agent.need
    assert not trio.run(agent.give_up, DIGEST, ["b", "c"])
    assert not trio.run(agent.pack, DIGEST)
    assert not agent.images.removed and not agent.images.packed
