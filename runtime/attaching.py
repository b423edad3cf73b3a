"""The first process of a container, as somebody at a terminal has it: its output as it comes, its input, its end."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import suppress

import trio

from proto import containerd_pb2 as api
from runtime import fifo, signals
from runtime.connection import Connection
from runtime.containers import Containers
from runtime.errors import NotFound
from runtime.logs import TAP_STALL_S_MAX, VISITOR_STALL_S_MAX, TaskLogs
from runtime.model import EXIT_CODE_UNKNOWN, ContainerExit

Wait = Callable[[str], Awaitable[ContainerExit]]


class AttachSession:
    """As ExecSession (execution.py), of a process that was there before and stays when this is closed."""

    def __init__(
        self, connection: Connection, containers: Containers, logs: TaskLogs, container_id: str, *, visiting: bool
    ) -> None:
        """`visiting`: the process must not wait for who is attached. Raises NotFound where nothing of the container
        writes."""
        self._connection = connection
        self._containers = containers
        self._logs = logs
        self._container_id = container_id
        self._output = logs.tap(container_id, VISITOR_STALL_S_MAX if visiting else TAP_STALL_S_MAX)
        path = logs.stdin_path(container_id)
        self._writer = fifo.FifoWriter(path) if path.exists() else None
        self._scope = trio.CancelScope()
        self._exit_code: int | None = None
        self._exited = trio.Event()

    @property
    def exit_code(self) -> int | None:
        """None while it runs, as far as is known."""
        return self._exit_code

    def start(self, nursery: trio.Nursery, wait: Wait) -> None:
        """`wait` waits for the end of the container; it may be made and not started as yet."""
        nursery.start_soon(self._watch, wait)

    async def _watch(self, wait: Wait) -> None:
        with self._scope:
            try:
                self._exit_code = (await wait(self._container_id)).exit_code
            except NotFound:
                self._exit_code = EXIT_CODE_UNKNOWN
            self._exited.set()

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the process does not read; raises BrokenPipeError once its input is closed."""
        if self._writer is None:
            raise BrokenPipeError("standard input is closed")
        try:
            await self._writer.write(data)
        except trio.ClosedResourceError:
            raise BrokenPipeError("standard input is closed") from None

    async def close_stdin(self) -> None:
        """The process reads to the end and then sees the end of its input."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            request = api.CloseIORequest(container_id=self._container_id, stdin=True)
            with suppress(NotFound):
                await self._connection.do("tasks.v1.Tasks/CloseIO", request)

    async def resize(self, columns: int, rows: int) -> None:
        request = api.ResizePtyRequest(container_id=self._container_id, width=columns, height=rows)
        with suppress(NotFound):
            await self._connection.do("tasks.v1.Tasks/ResizePty", request)

    async def signal(self, name_or_number: str | int) -> None:
        with suppress(NotFound):
            await self._containers.kill(self._container_id, signals.number_of(name_or_number))

    def outputs(self) -> AsyncIterable[tuple[str, bytes]]:
        """("stdout" or "stderr", bytes) until nothing more comes."""
        return self._output

    async def wait(self) -> int:
        """Until the process has ended."""
        await self._exited.wait()
        return EXIT_CODE_UNKNOWN if self._exit_code is None else self._exit_code

    async def close(self) -> None:
        """Lets go of it; safe to repeat."""
        self._scope.cancel()
        self._logs.untap(self._container_id, self._output)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
