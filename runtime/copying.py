"""Copies files out of and into running containers: archives as streams, with the work in threads of its own limit."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from proto.copy_rules import CopyRefused
from proto.hands_pb2 import CopyFromReply, CopyFromRequest, CopyTarget, CopyToReply
from runtime.container_files import ContainerFiles, files_of
from runtime.errors import InvalidRequest, NoSpace, NotFound, NotPossible, RuntimeFailure
from runtime.runtime import Runtime

T = TypeVar("T")
Receive = Callable[[], Awaitable[bytes | None]]

COPIES_MAX = 16
_WORDS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "something on the way to it is no folder, or a folder was to replace a file",
    errno.EISDIR: "a folder is there, and a file does not replace one",
    errno.ENOTEMPTY: "a folder is there, and a file does not replace one",
    errno.EROFS: "it is read-only for the container",
    errno.EBUSY: "something is mounted there, and it cannot be replaced",
    errno.ELOOP: "its links lead in a circle, or out of the container",
}


class Copying:
    """Of one host. At most COPIES_MAX go on at once; further ones are refused."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._threads = trio.CapacityLimiter(COPIES_MAX)
        self._going_on = 0

    async def copy_from(self, request: CopyFromRequest, send: Callable[[CopyFromReply], Awaitable[None]]) -> None:
        """Sends what it is, and then its archive. Raises RuntimeFailure."""

        async def copy(files: ContainerFiles) -> None:
            source, chunks = await self._run(lambda: files.source(request.path, request.follow_link), request.path)
            try:
                await send(CopyFromReply(source=source))
                while data := await self._run(lambda: next(chunks, b""), request.path):
                    await send(CopyFromReply(data=data))
            finally:
                chunks.close()

        await self._while_it_runs(request.task_id, copy)

    async def copy_to(self, target: CopyTarget, receive: Receive) -> CopyToReply:
        """`receive` gives the archive's bytes, b"" at its end, None where it broke off. Raises RuntimeFailure."""

        async def copy(files: ContainerFiles) -> CopyToReply:
            done = await self._run(lambda: files.unpack(target, _FromTrio(receive)), target.path)
            return CopyToReply(files=done.file_count, bytes=done.byte_count, skipped=done.skipped)

        return await self._while_it_runs(target.task_id, copy)

    async def _run(self, function: Callable[[], T], path: str) -> T:
        with _in_words(path):
            return await trio.to_thread.run_sync(function, limiter=self._threads)

    async def _while_it_runs(self, task_id: str, work: Callable[[ContainerFiles], Awaitable[T]]) -> T:
        if self._going_on >= COPIES_MAX:
            raise NotPossible(f"the task's host makes {COPIES_MAX} copies already; try again when one of them is done")
        self._going_on += 1
        try:
            process_id = await self._runtime.first_process(task_id)
            try:
                with files_of(process_id) as files:
                    # The number may have gone to another process before its root was opened, and not since.
                    if await self._runtime.first_process(task_id) != process_id:
                        raise NotFound("the task does not run any more")
                    return await self._or_its_end(task_id, lambda: work(files))
            except OSError as error:
                raise NotFound(f"the task does not run any more ({error.strerror or error})") from error
        finally:
            self._going_on -= 1

    async def _or_its_end(self, task_id: str, work: Callable[[], Awaitable[T]]) -> T:
        results: list[T] = []
        failures: list[Exception] = []

        async def watch(scope: trio.CancelScope) -> None:
            try:
                await self._runtime.wait(task_id)
            except RuntimeFailure as error:
                failures.append(error)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            try:
                results.append(await work())
            except Exception as error:  # raised below, outside of the nursery that would wrap it
                failures.append(error)
            nursery.cancel_scope.cancel()
        if results:
            return results[0]
        raise failures[0] if failures else NotFound("the task has ended while it was copied")


class _FromTrio:
    """What a thread reads of a stream that belongs to trio."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def read(self, _count: int, /) -> bytes:
        data: bytes | None = trio.from_thread.run(self._receive)
        if data is None:
            raise CopyRefused("the copy broke off before its end")
        return data


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """What went wrong with the files, as RuntimeFailure."""
    try:
        yield
    except CopyRefused as error:
        raise InvalidRequest(str(error)) from error
    except OSError as error:
        raise _failure(error, path) from error


def _failure(error: OSError, path: str) -> RuntimeFailure:
    number = error.errno or 0
    where = str(error.filename) if error.filename else path
    if number in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{where}: no space is left there, in the volume or on the disk of the task's host")
    words = f"{where}: {_WORDS.get(number, os.strerror(number))}"
    return NotFound(words) if number == errno.ENOENT else NotPossible(words)
