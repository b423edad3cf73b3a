"""The logs of this host's tasks: read from FIFOs, kept in rotated files, followed by whoever asks.

The shim holds both ends of each FIFO for as long as the process has its own end open, so a restart of the daemon
neither breaks the writing process nor loses what is in the pipe; `attach` after it goes on where the last reader
stopped. Of a process that ends while there is no daemon, what the pipe still holds goes with the shim's ends, unless
somebody keeps it open (fifo_keeper.py).
"""

from __future__ import annotations

import logging
import math
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import trio

from proto.host_pb2 import LogLine
from runtime import fifo, log_files, log_ids, log_reader, log_receiver
from runtime.errors import NotFound
from runtime.fifo_keeper import FifoKeeper, NoKeeper
from runtime.live_log import STREAMS, LiveLog, Output
from runtime.log_choice import ALL, LogChoice
from runtime.log_intake import TAKE_BYTES_MAX, path_of
from runtime.log_policy import LogPolicy, usual
from runtime.log_shipping import LogShipping, Shipment
from runtime.model import ContainerRequest, RuntimeSettings

log = logging.getLogger(__name__)

BATCH_WAIT_MS = 20  # collects what comes meanwhile
BUSY_WAIT_MS = 50  # the same while more comes all the time: bounds a chatty task to 20 writes a second a stream
WRITER_THREADS_MAX = 2
DRAIN_WAIT_MS_MAX = 2_000
OUTPUT_NAMES = {"out": "stdout", "err": "stderr"}
TAP_CHUNKS_MAX = 16
TAP_STALL_S_MAX = 30.0
VISITOR_STALL_S_MAX = 2.0


class TaskLogs:
    """Runs in `nursery`, which outlives every container that is attached."""

    def __init__(self, settings: RuntimeSettings, nursery: trio.Nursery, keeper: FifoKeeper | None = None) -> None:
        self._settings = settings
        self._keeper = keeper or NoKeeper()
        self._nursery = nursery
        self._live: dict[str, LiveLog] = {}
        self._held: dict[str, trio.Event] = {}  # by task, set when a container of it begins to write
        self._complete: set[str] = set()  # nothing more can come of these
        self._limiter = trio.CapacityLimiter(WRITER_THREADS_MAX)
        self._archivers = trio.CapacityLimiter(1)
        self._left_out_lines = 0  # of logs that have ended
        self._settled = False
        self._shipping = LogShipping(nursery, self.change_of, self._note)

    @property
    def left_out_lines(self) -> int:
        """Since this daemon began: what tasks wrote beyond their bounds."""
        return self._left_out_lines + sum(live.left_out_lines for live in self._live.values())

    def folder(self, task_id: str) -> Path:
        return self._settings.log_folder / log_ids.task_of(task_id)

    def hold(self, task_id: str) -> None:
        """More comes of the task, though nothing writes at the moment: who follows its log goes on waiting."""
        self._held.setdefault(task_id, trio.Event())

    def release(self, task_id: str) -> None:
        """Undoes `hold`."""
        if (held := self._held.pop(task_id, None)) is not None:
            held.set()

    def fifo_paths(self, task_id: str, tty: bool) -> tuple[Path, Path | None]:
        """Of standard output and standard error; a terminal has the first only."""
        base = self._settings.run_folder / "io" / task_id
        return base / "out", None if tty else base / "err"

    def stdin_path(self, task_id: str) -> Path:
        """Of standard input, where the task has one."""
        return self._settings.run_folder / "io" / task_id / "in"

    def make_stdin(self, task_id: str) -> str:
        """A FIFO for standard input that stays open and silent: the shim holds its writing end."""
        path = self.stdin_path(task_id)
        fifo.make(path)
        return str(path)

    def tap(self, task_id: str, stall_s_max: float = TAP_STALL_S_MAX) -> Output:
        """What the task writes from now on, as it comes; it waits while nobody reads here, so long at most: then there
        is no more of it here. Raises NotFound where nothing writes. To be given to `untap`."""
        live = self._live.get(task_id)
        if live is None:
            raise NotFound(f"task {task_id} writes nothing")
        send, receive = trio.open_memory_channel[tuple[str, bytes]](TAP_CHUNKS_MAX)
        live.taps[receive] = (send, stall_s_max)
        return receive

    def untap(self, task_id: str, output: Output) -> None:
        """Safe to repeat."""
        output.close()
        live = self._live.get(task_id)
        if live is not None and (tap := live.taps.pop(output, None)) is not None:
            tap[0].close()

    def attach(self, task_id: str, *, running: bool, tty: bool = False, policy: LogPolicy | None = None) -> None:
        """Makes the FIFOs where they are lacking and reads them until every writer has closed.

        `running` False: the container has yet to start, so a writer is waited for; with `tty` it has only one
        stream. `policy`: what is kept; None: the host's own bounds. Does nothing where the FIFOs are read already.
        Raises OSError, such as a full disk.
        """
        if task_id not in self._live:
            self._open(task_id, () if running else ("out",) if tty else STREAMS, policy, writers=True)

    def ship(self, request: ContainerRequest) -> None:
        """The log of a container that is attached is sent where its spec says, too. Raises OSError."""
        task_id = log_ids.task_of(request.id)
        if (receiver := log_receiver.of(request, task_id, socket.gethostname())) is not None:
            log_receiver.keep(self.folder(task_id), receiver)
            self._shipping.look(task_id, self.folder(task_id))

    @property
    def shipments(self) -> Sequence[Shipment]:
        return self._shipping.shipments

    def recover(self, task_id: str, policy: LogPolicy | None = None) -> None:
        """The task had ended when this daemon first saw it: takes what is left of its output, once.

        That is the line it had begun, and what the shim could not get rid of because the pipe was full.
        """
        if task_id in self._live:
            self.expect_end(task_id)
        elif task_id not in self._complete:
            left = [path_of(self.folder(task_id), stream) for stream in STREAMS]
            if any(path.exists() for path in (*left, self._settings.run_folder / "io" / task_id)):
                self._open(task_id, (), policy, writers=False)
            else:
                self._complete.add(task_id)

    def _open(self, task_id: str, made: Sequence[str], policy: LogPolicy | None, *, writers: bool) -> None:
        """`made`: the streams whose FIFOs are made; of the others those are read that there are."""
        policy = policy or usual(self._settings)
        readers: dict[str, fifo.FifoReader] = {}
        base = self._settings.run_folder / "io" / task_id
        try:
            for stream in STREAMS:
                if stream in made:
                    fifo.make(base / stream)
                elif not (base / stream).exists():
                    continue
                readers[stream] = fifo.FifoReader(base / stream)
            live = LiveLog(self.folder(task_id), readers, policy, writers=writers)
        except OSError:
            for reader in readers.values():
                reader.close()
            raise
        for stream, reader in readers.items():
            self._keeper.keep(_kept_name(task_id, stream), reader.file)
        self._live[task_id] = live
        if (held := self._held.get(log_ids.task_of(task_id))) is not None:
            held.set()
            self._held[log_ids.task_of(task_id)] = trio.Event()
        self._shipping.look(log_ids.task_of(task_id), self.folder(task_id))
        self._archive_soon(task_id, live)  # what an earlier daemon had no time for
        self._nursery.start_soon(self._read_all, task_id, live)

    def expect_end(self, task_id: str) -> None:
        """The task has ended: what its FIFOs hold is read (bounded wait), and then its log ends, even
        where the shim closed them before anybody opened them here."""
        live = self._live.get(task_id)
        if live is not None:
            deadline = trio.current_time() + DRAIN_WAIT_MS_MAX / 1000
            live.scope.deadline = min(live.scope.deadline, deadline)

    def settle(self, task_ids: Container[str]) -> None:
        """There are no other containers: what is kept of others is let go of, and what an earlier daemon had not sent
        of their logs is sent."""
        for name in list(self._keeper.kept()):
            task_id = name.rpartition(".")[0]
            if task_id not in task_ids and task_id not in self._live:
                self._keeper.drop(name)
        if not self._settled:
            self._settled = True
            self._nursery.start_soon(self._ship_rests)

    async def _ship_rests(self) -> None:
        for task_id in await self.ids():
            self._shipping.look(task_id, self.folder(task_id))

    async def detach(self, task_id: str, *, drain: bool = True) -> None:
        """Stops reading and removes the FIFOs; `drain`: first waits (bounded) for every writer to close."""
        live = self._live.get(task_id)
        if live is not None:
            if drain:
                await self.ended(task_id)
            live.scope.cancel()
            await live.ended.wait()
        self._complete.discard(task_id)
        for stream in STREAMS:
            self._keeper.drop(_kept_name(task_id, stream))
        shutil.rmtree(self._settings.run_folder / "io" / task_id, ignore_errors=True)

    async def ended(self, task_id: str) -> None:
        """Waits until nothing more can come from the task, at most DRAIN_WAIT_MS_MAX."""
        live = self._live.get(task_id)
        if live is not None:
            with trio.move_on_after(DRAIN_WAIT_MS_MAX / 1000):
                await live.ended.wait()

    def read(self, task_id: str, follow: bool, choice: LogChoice = ALL) -> LogLines:
        """Lines in the order they were read; `follow` goes on until the task has ended.

        Raises NotFound where the task has no log on this host.
        """
        if not self.folder(task_id).is_dir():
            raise NotFound(f"task {task_id} has no log on this host")
        return LogLines(self, task_id, follow, choice)

    def change_of(self, task_id: str) -> trio.Event | None:
        """Set when the log grows or ends; None where it has ended."""
        live = self._live.get(task_id)
        if live is None and (held := self._held.get(task_id)) is not None:
            parts = (part for container_id, part in self._live.items() if log_ids.task_of(container_id) == task_id)
            return next((part.changed for part in parts), held)
        return live.changed if live else None

    async def ids(self) -> Sequence[str]:
        """Tasks that have a log."""
        return await trio.to_thread.run_sync(_folders, self._settings.log_folder, limiter=self._limiter)

    async def remove(self, task_id: str) -> None:
        """Removes the files; harmless where there are none."""
        self._shipping.stop(task_id)
        await self.detach(task_id, drain=False)
        await trio.to_thread.run_sync(shutil.rmtree, self.folder(task_id), True, limiter=self._limiter)

    async def _read_all(self, task_id: str, live: LiveLog) -> None:
        try:
            with live.scope:
                async with trio.open_nursery() as nursery:
                    for stream in STREAMS:
                        nursery.start_soon(self._read_stream, task_id, live, stream, live.readers.get(stream))
        except* Exception as group:  # one task's log must never end the others'
            log.error("log of task %s stops: %s", task_id, group.exceptions[0])
        finally:
            self._live.pop(task_id, None)
            self._left_out_lines += live.left_out_lines
            self._complete.add(task_id)
            live.close()
            live.ended.set()
            live.wake()

    async def _read_stream(self, task_id: str, live: LiveLog, stream: str, reader: fifo.FifoReader | None) -> None:
        if reader is None and live.writers:
            return  # a terminal has one stream only
        ended = False
        try:
            await self._write(task_id, live, live.load, stream)
            if reader is not None:
                await self._read_fifo(task_id, live, stream, reader)
            ended = True
        finally:
            # What is left in the FIFO when the daemon goes is the next one's.
            with trio.CancelScope(shield=True):
                if live.scope.cancel_called and reader is not None:
                    for _ in range(fifo.PIPE_SIZE_BYTES // TAKE_BYTES_MAX + 1):
                        if not await self._take(task_id, live, stream):
                            break
                if ended or live.scope.cancel_called:
                    await self._write(task_id, live, live.finish, stream)
                    self._keeper.drop(_kept_name(task_id, stream))
                if reader is not None:
                    reader.close()

    async def _read_fifo(self, task_id: str, live: LiveLog, stream: str, reader: fifo.FifoReader) -> None:
        waits, wait_ms = live.writers, BATCH_WAIT_MS  # for a writer first, where reading would take none for the end
        first = True
        while True:
            if waits:
                began = trio.current_time()
                await reader.wait()
                wait_ms = BUSY_WAIT_MS if trio.current_time() - began < BATCH_WAIT_MS / 1000 else BATCH_WAIT_MS
            data = await self._take(task_id, live, stream)
            if data == b"" or (data is None and first and not live.writers):  # other hands hold it, and nobody writes
                return
            waits, first = live.writers or data is None, False  # one that was opened without a writer tells no end
            if data:
                await _tell(live, stream, data)
                if not live.taps and len(data) < TAKE_BYTES_MAX:
                    await trio.sleep(wait_ms / 1000)

    async def _take(self, task_id: str, live: LiveLog, stream: str) -> bytes | None:
        """What the FIFO held, which is in the log now; empty at its end, None where it holds nothing."""
        try:
            async with live.lock:
                data = await trio.to_thread.run_sync(live.take, stream, limiter=self._limiter)
        except BlockingIOError:
            return None
        if data:
            self._grown(task_id, live)
        return data

    async def _write(self, task_id: str, live: LiveLog, part: Callable[[str], bool], stream: str) -> None:
        try:
            async with live.lock:
                added = await trio.to_thread.run_sync(part, stream, limiter=self._limiter)
        except OSError as error:
            log.error("log of task %s loses a line: %s", task_id, error)
        else:
            if added:
                self._grown(task_id, live)

    def _note(self, task_id: str, words: str) -> None:
        """Soon, where something writes to the log."""
        for container_id, live in self._live.items():
            if log_ids.task_of(container_id) == task_id:
                self._nursery.start_soon(self._write, container_id, live, live.note, words)
                return

    def _grown(self, task_id: str, live: LiveLog) -> None:
        if live.files is not None and live.files.rotated:
            live.files.rotated = False
            self._archive_soon(task_id, live)
        live.wake()

    def _archive_soon(self, task_id: str, live: LiveLog) -> None:
        live.to_archive = live.compress
        if live.compress and not live.archiving:
            live.archiving = True
            self._nursery.start_soon(self._archive, task_id, live)

    async def _archive(self, task_id: str, live: LiveLog) -> None:
        """Apart from the writing, which it must not hold up; what fails is tried again at the next rotation."""
        try:
            while live.to_archive:
                live.to_archive = False
                await trio.to_thread.run_sync(
                    log_files.archive, self.folder(task_id), trio.from_thread.check_cancelled, limiter=self._archivers
                )
        except OSError as error:
            log.warning("log of task %s is not compressed: %s", task_id, error)
        finally:
            live.archiving = False


async def _tell(live: LiveLog, stream: str, data: bytes) -> None:
    """Who does not take it within a while is left behind: the task must not wait for ever for a dead client."""
    for output, (send, stall_s_max) in list(live.taps.items()):
        with trio.move_on_after(stall_s_max) as waiting:
            try:
                await send.send((OUTPUT_NAMES[stream], data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                live.taps.pop(output, None)
        if waiting.cancelled_caught:
            live.taps.pop(output, None)
            send.close()


def _kept_name(task_id: str, stream: str) -> str:
    return f"{task_id}.{stream}"


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_dir()]


class LogLines:
    """An async iterator that may be let go of at any time: it holds nothing but its place."""

    def __init__(self, logs: TaskLogs, task_id: str, follow: bool, choice: LogChoice) -> None:
        self._logs = logs
        self._task_id = task_id
        self._folder = logs.folder(task_id)
        self._follow = follow
        self._choice = choice
        self._position: log_reader.Position | None = None
        self._pending: deque[LogLine] = deque()

    def __aiter__(self) -> LogLines:
        return self

    async def __anext__(self) -> LogLine:
        while not self._pending:
            if not await self._advance():
                raise StopAsyncIteration
        return self._pending.popleft()

    async def _advance(self) -> bool:
        """Reads on; False at the end."""
        if self._position is None:
            self._position = await trio.to_thread.run_sync(log_reader.beginning, self._folder, self._choice)
        changed = self._logs.change_of(self._task_id)  # before reading: no change goes unseen
        lines, after = await trio.to_thread.run_sync(log_reader.read_batch, self._folder, self._position)
        self._pending.extend(filter(self._choice.has, lines))
        if after == self._position:
            if not self._follow or changed is None:
                return False
            return await self._wait(changed)
        self._position = after
        return True

    async def _wait(self, changed: trio.Event) -> bool:
        """For more; False where what comes from now on is not asked for."""
        left_s = self._choice.until_unix_ms / 1000 - time.time() if self._choice.until_unix_ms else math.inf
        with trio.move_on_after(max(left_s, 0.0)) as waiting:
            await changed.wait()
        return not waiting.cancelled_caught
