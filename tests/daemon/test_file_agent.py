"""A host without the cluster key gets the files of its tasks from voters, and keeps secrets in memory only."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import grpc
import pytest
import trio
import trio.testing

from daemon.agent import file_agent
from daemon.agent.file_agent import FileAgent
from daemon.agent.host_view import HostView
from daemon.agent.leader_connection import Leader
from daemon.agent.task_runner import TaskFailure
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState, ReadTaskFilesReply
from storage.memory_files import MemoryFiles
from tests.storage.mounts import unmount

P = ParamSpec("P")
VOTERS = [Leader("one", "192.0.2.1", 1), Leader("two", "192.0.2.2", 2)]


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test that is a trio function."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        trio.run(functools.partial(test, *arguments, **named))

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "task").mkdir()
    yield tmp_path
    unmount(tmp_path / "secrets")


def task(identifier: str = "task") -> objects.Task:
    made = objects.Task(meta=objects.Meta(id=identifier, name="web.1"))
    made.spec.container.files.add(
        kind=objects.FILE_KIND_SECRET, name="pw", target="/run/secrets/pw", file_id="a", uid=7
    )
    made.spec.container.files.add(kind=objects.FILE_KIND_CONFIG, name="c", target="/c", file_id="b", mode=0o640)
    return made


def reply(**contents: bytes) -> ReadTaskFilesReply:
    made = ReadTaskFilesReply()
    for file_id, content in contents.items():
        made.files.add(file_id=file_id, content=content)
    return made


class Voters:
    """Stands for the voters: what each answers, in turn; the last answer again and again."""

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def answer(self, voter: str) -> ReadTaskFilesReply:
        self.asked.append(voter)
        answers = self._answers[voter]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, ReadTaskFilesReply)
        return found


def agent(folder: Path, voters: Voters, monkeypatch: pytest.MonkeyPatch, view: HostView | None = None) -> FileAgent:
    class Stub:
        def __init__(self, node_id: str) -> None:
            self.node_id = node_id

        def ReadTaskFiles(self, request: Any, timeout: float) -> str:
            return self.node_id

    class Peers:
        def host(self, node_id: str, _address: str, _port: int) -> Stub:
            return Stub(node_id)

    async def call(voter: str) -> ReadTaskFilesReply:
        await trio.lowlevel.checkpoint()
        return voters.answer(voter)

    monkeypatch.setattr(file_agent, "call", call)
    return FileAgent(folder, view or HostView(), Peers(), lambda: VOTERS, None)  # type: ignore[arg-type]


def failed(code: grpc.StatusCode, words: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=words)


@in_trio
async def test_files_come_from_the_first_voter_that_knows_the_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = failed(grpc.StatusCode.UNAVAILABLE, "not heard of it yet")
    voters = Voters(one=[behind], two=[behind, reply(b=b"text", a=b"secret")])
    made = agent(folder, voters, monkeypatch)
    secret, config = await made.prepare(task(), folder / "task")
    assert voters.asked == ["one", "two", "one", "two"]
    assert (secret.target, config.target) == ("/run/secrets/pw", "/c")
    assert secret.read_only and config.read_only
    assert (secret.source.read_bytes(), config.source.read_bytes()) == (b"secret", b"text")
    assert (secret.source.stat().st_uid, secret.source.stat().st_mode & 0o777) == (7, 0o444)
    assert config.source.stat().st_mode & 0o777 == 0o640
    assert folder in config.source.parents
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    assert kinds[str(folder / "secrets")] == "ramfs"
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    made.remove("task")
    assert not secret.source.exists()


@in_trio
async def test_what_is_gone_is_not_asked_for_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voters = Voters(one=[failed(grpc.StatusCode.NOT_FOUND, "secret pw (version 1) is not in the cluster any more")])
    with pytest.raises(TaskFailure, match="not in the cluster any more"):
        await agent(folder, voters, monkeypatch).prepare(task(), folder / "task")
    assert voters.asked == ["one"]


def test_a_task_fails_in_words_where_no_voter_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    down = failed(grpc.StatusCode.UNAVAILABLE, "connection refused")
    voters = Voters(one=[down], two=[reply(a=b"secret")])
    made = agent(folder, voters, monkeypatch)
    with pytest.raises(TaskFailure, match=r"secret pw .* cannot be had: a voter told other files"):
        trio.run(made.prepare, task(), folder / "task", clock=trio.testing.MockClock(autojump_threshold=0))


@in_trio
async def test_a_host_with_the_key_asks_itself_first(folder: Path) -> None:
    def own(task_id: str) -> ReadTaskFilesReply:
        assert task_id == "task"
        return reply(a=b"secret", b=b"text")

    made = FileAgent(folder, HostView(), None, list, own)  # type: ignore[arg-type]
    (secret, _) = await made.prepare(task(), folder / "task")
    assert secret.source.read_bytes() == b"secret"


@in_trio
async def test_files_of_tasks_that_the_cluster_does_not_know_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryFiles(folder / "secrets")
    for owner in ("known", "unknown"):
        memory.write(owner, "file-0", b"secret", 0, 0, 0o400)
    view = HostView()
    view.apply(HostState(complete=True, put=[HostItem(key=f"task/{one}", task=task(one)) for one in ("known", "task")]))
    voters = Voters(one=[reply(a=b"secret", b=b"text")])
    await agent(folder, voters, monkeypatch, view).prepare(task(), folder / "task")
    assert memory.owners() == {"known", "task"}
