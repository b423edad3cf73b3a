"""Gives tasks their secrets and configs: asked of a voter when the task starts, written to where its container finds
them, and gone with it. What is secret is never anywhere but in this host's memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import trio

from daemon.agent.host_view import HostView
from daemon.agent.leader_connection import Leader
from daemon.agent.task_runner import TaskFailure
from daemon.errors import Kind, Refused
from daemon.orchestration.task_files import words_of
from daemon.peers import Peers
from proto import objects_pb2 as objects
from proto.grpc_trio import call
from proto.host_pb2 import ReadTaskFilesReply, ReadTaskFilesRequest
from runtime.model import BindMount
from storage.memory_files import MemoryFiles, write_file

FETCH_S_MAX = 20.0
ASK_S_MAX = 3.0
RETRY_S = 0.2
MODE_USUAL = 0o444
# What another voter, or the same one a moment later, will not answer otherwise.
FINAL = (grpc.StatusCode.NOT_FOUND,)

# What this host knows by itself, by task id. Raises Refused.
OwnContents = Callable[[str], ReadTaskFilesReply]


class FileAgent:
    """`own` on hosts with a part in consensus; `voters`: whom to ask."""

    def __init__(
        self,
        run_folder: Path,
        view: HostView,
        peers: Peers,
        voters: Callable[[], Sequence[Leader]],
        own: OwnContents | None,
    ) -> None:
        self._memory = MemoryFiles(run_folder / "secrets")
        self._view = view
        self._peers = peers
        self._voters = voters
        self._own = own

    async def prepare(self, task: objects.Task, folder: Path) -> tuple[BindMount, ...]:
        """The mounts of a task's files. Configs are written below `folder`. Raises TaskFailure, StorageFailure,
        OSError."""
        wanted = task.spec.container.files
        if not wanted:
            return ()
        contents = await self._contents(task)
        self._sweep()
        mounts = []
        for number, (mount, content) in enumerate(zip(wanted, contents, strict=True)):
            name, mode = f"file-{number}", mount.mode or MODE_USUAL
            if mount.kind == objects.FILE_KIND_SECRET:
                path = self._memory.write(task.meta.id, name, content, mount.uid, mount.gid, mode)
            else:
                path = write_file(folder / name, content, mount.uid, mount.gid, mode)
            mounts.append(BindMount(path, mount.target, read_only=True))
        return tuple(mounts)

    def remove(self, task_id: str) -> None:
        """Safe to repeat."""
        self._memory.remove(task_id)

    def _sweep(self) -> None:
        """What a daemon left that ended between writing and the task's end, and did not hear of it again."""
        if self._view.complete:
            for task_id in self._memory.owners() - {task.meta.id for task in self._view.tasks}:
                self._memory.remove(task_id)

    async def _contents(self, task: objects.Task) -> list[bytes]:
        problem = "no voter is known"
        with trio.move_on_after(FETCH_S_MAX):
            while True:
                for ask in [self._ask_self, *(self._asker(voter) for voter in self._voters())]:
                    try:
                        return _in_order(task, await ask(task.meta.id))
                    except Refused as refused:
                        if refused.kind is Kind.NOT_FOUND:
                            raise TaskFailure(refused.message) from refused
                        problem = refused.message or problem
                await trio.sleep(RETRY_S)
        raise TaskFailure(f"{words_of(task.spec.container.files[0])} cannot be had: {problem}")

    async def _ask_self(self, task_id: str) -> ReadTaskFilesReply:
        if self._own is None:
            raise Refused("", Kind.UNAVAILABLE)
        return self._own(task_id)

    def _asker(self, voter: Leader) -> Callable[[str], Awaitable[ReadTaskFilesReply]]:
        async def ask(task_id: str) -> ReadTaskFilesReply:
            stub = self._peers.host(voter.node_id, voter.address, voter.api_port)
            try:
                reply: ReadTaskFilesReply = await call(
                    stub.ReadTaskFiles(ReadTaskFilesRequest(task_id=task_id), timeout=ASK_S_MAX)  # type: ignore[arg-type]
                )
            except grpc.aio.AioRpcError as error:
                kind = Kind.NOT_FOUND if error.code() in FINAL else Kind.UNAVAILABLE
                raise Refused(error.details() or error.code().name, kind) from error
            return reply

        return ask


def _in_order(task: objects.Task, reply: ReadTaskFilesReply) -> list[bytes]:
    found = {file.file_id: file.content for file in reply.files}
    try:
        return [found[mount.file_id] for mount in task.spec.container.files]
    except KeyError:
        raise Refused("a voter told other files than the task has", Kind.UNAVAILABLE) from None
