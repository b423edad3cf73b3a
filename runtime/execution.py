"""A process in a running container: its input, output, terminal size and end."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import trio
from google.protobuf.any_pb2 import Any as AnyMessage

from proto import containerd_pb2 as api
from runtime import fifo, left_sessions, process_session, signals
from runtime.connection import Connection
from runtime.containers import PROCESS_TYPE, Containers
from runtime.errors import NotFound, RuntimeFailure, Unavailable
from runtime.model import EXIT_CODE_UNKNOWN, RuntimeSettings

log = logging.getLogger(__name__)

OUTPUT_CHUNKS_MAX = 16
CLOSE_WAIT_MS_MAX = 10_000
DRAIN_WAIT_MS_MAX = 1_000
STDERR, STDOUT = "stderr", "stdout"


@dataclass(frozen=True)
class ProcessRequest:
    """`process` is the OCI specification's; `merge_output`: standard error goes into standard output."""

    container_id: str
    process: Mapping[str, Any]
    tty: bool
    stdin: bool
    merge_output: bool = False


class ExecSession:
    """Use it as `async with session:`, or `close` it: where the process still runs then, it is killed with all that it
    has begun, and nothing is left."""

    def __init__(
        self,
        connection: Connection,
        containers: Containers,
        settings: RuntimeSettings,
        request: ProcessRequest,
    ) -> None:
        self._connection = connection
        self._containers = containers
        self._request = request
        self._id = f"exec-{random.getrandbits(64):016x}"
        self._folder: Path = settings.run_folder / "exec" / self._id
        self._readers: dict[str, fifo.FifoReader] = {}
        self._writer: fifo.FifoWriter | None = None
        self._reading: dict[str, trio.CancelScope] = {}
        self._scope = trio.CancelScope()
        self._pumping = False
        self._pumped = trio.Event()
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](OUTPUT_CHUNKS_MAX)
        self._exit_code: int | None = None
        self._exited = trio.Event()
        self._process: tuple[int, int] | None = None  # its id, and when it began
        self._made = False
        self._closed = False

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n where signal n ended it."""
        return self._exit_code

    async def start(self, nursery: trio.Nursery) -> ExecSession:
        """Makes and starts the process; returns itself. Raises RuntimeFailure; then all is undone."""
        try:
            await self._make()
            process_id = await self._containers.start(self._request.container_id, self._id)
            self._process = (process_id, process_session.start_time(process_id))
            left_sessions.note_owner(self._folder, self._request.container_id, self._process)
            self._pumping = True
            nursery.start_soon(self._pump)
        except BaseException:
            await self.close()
            raise
        return self

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
            request = api.CloseIORequest(container_id=self._request.container_id, exec_id=self._id, stdin=True)
            with suppress(NotFound):
                await self._connection.do("tasks.v1.Tasks/CloseIO", request)

    async def resize(self, columns: int, rows: int) -> None:
        request = api.ResizePtyRequest(
            container_id=self._request.container_id, exec_id=self._id, width=columns, height=rows
        )
        with suppress(NotFound):
            await self._connection.do("tasks.v1.Tasks/ResizePty", request)

    async def signal(self, name_or_number: str | int) -> None:
        with suppress(NotFound):
            await self._containers.kill(self._request.container_id, signals.number_of(name_or_number), exec_id=self._id)

    def outputs(self) -> AsyncIterable[tuple[str, bytes]]:
        """("stdout" or "stderr", bytes) until the process has ended and all is read."""
        return self._receive

    async def wait(self) -> int:
        """Until the process has ended; its output must be read meanwhile, or it may never end."""
        await self._exited.wait()
        return EXIT_CODE_UNKNOWN if self._exit_code is None else self._exit_code

    async def close(self) -> None:
        """Kills the process if it runs and removes all of it; bounded, and safe to repeat or cancel."""
        if self._closed:
            return
        self._closed = True
        with trio.move_on_after(CLOSE_WAIT_MS_MAX / 1000, shield=True) as scope:
            if self._process is not None and self._exit_code is None:
                await trio.to_thread.run_sync(process_session.kill_session, *self._process)
            if self._made:
                await left_sessions.delete_process(self._connection, self._request.container_id, self._id)
            self._scope.cancel()
            if self._pumping:
                await self._pumped.wait()
        if scope.cancelled_caught:
            log.warning("process %s of container %s is left", self._id, self._request.container_id)
        self._release()

    async def __aenter__(self) -> ExecSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _make(self) -> None:
        request = self._request
        streams = [STDOUT] if request.tty or request.merge_output else [STDOUT, STDERR]
        for stream in streams:
            fifo.make(self._folder / stream)
            self._readers[stream] = fifo.FifoReader(self._folder / stream, fifo.READ_SIZE_BYTES_MAX)
        stdout = str(self._folder / STDOUT)
        stderr = "" if request.tty else stdout if request.merge_output else str(self._folder / STDERR)
        stdin = ""
        if request.stdin:
            fifo.make(self._folder / "stdin")
            self._writer = fifo.FifoWriter(self._folder / "stdin")
            stdin = str(self._folder / "stdin")
        left_sessions.note_owner(self._folder, request.container_id)
        self._made = True  # from here on containerd may know of it, even if the answer is lost
        await self._connection.do(
            "tasks.v1.Tasks/Exec",
            api.ExecProcessRequest(
                container_id=request.container_id,
                exec_id=self._id,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                terminal=request.tty,
                spec=AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(request.process).encode()),
            ),
        )

    async def _pump(self) -> None:
        """Runs in the runtime's nursery: reads the output and waits for the end, until closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for stream, reader in self._readers.items():
                        nursery.start_soon(self._read, stream, reader, self._send.clone())
                    self._exit_code = await self._wait_process()
                    self._exited.set()
                    # A child that went on in the background may hold the output open for ever: from
                    # now on silence is its end. A slow reader of ours does not count as silence.
                    for scope in self._reading.values():
                        scope.deadline = trio.current_time() + DRAIN_WAIT_MS_MAX / 1000
        except* Exception as group:
            log.error("process %s: %s", self._id, group.exceptions[0])
        finally:
            self._exited.set()
            self._send.close()
            self._pumped.set()

    async def _read(
        self, stream: str, reader: fifo.FifoReader, send: trio.MemorySendChannel[tuple[str, bytes]]
    ) -> None:
        async with send:
            data = await self._next(stream, reader.read_after_open)
            while data:
                await send.send((stream, data))
                data = await self._next(stream, reader.read)

    async def _next(self, stream: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        with trio.CancelScope() as scope:
            if self._exited.is_set():
                scope.deadline = trio.current_time() + DRAIN_WAIT_MS_MAX / 1000
            self._reading[stream] = scope
            return await read()
        return b""

    async def _wait_process(self) -> int:
        request = api.WaitRequest(container_id=self._request.container_id, exec_id=self._id)
        while True:
            try:
                reply = await self._connection.unary("tasks.v1.Tasks/Wait", request, api.WaitResponse, timeout_ms=None)
                return reply.exit_status
            except Unavailable:  # containerd restarts; the process goes on
                await self._connection.wait_healthy()
            except RuntimeFailure as error:
                log.debug("process %s: %s", self._id, error)
                return EXIT_CODE_UNKNOWN

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for reader in self._readers.values():
            reader.close()
        self._send.close()
        self._receive.close()
        shutil.rmtree(self._folder, ignore_errors=True)
