"""The logs of this host's tasks: read from FIFOs, kept in rotated files, followed by whoever asks.

The shim holds both ends of each FIFO for as long as the process has its own end open, so a restart of the daemon
neither breaks the writing process nor loses what is in the pipe; `attach` after it goes on where the last reader
stopped. Of a process that ends while there is no daemon, what the pipe still holds goes with the shim's ends:
docs/logs.md says how much that can be.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import trio

from proto.host_pb2 import LogLine
from runtime import fifo, log_files, log_ids, log_reader
from runtime.errors import NotFound
from runtime.log_choice import ALL, LogChoice
from runtime.log_files import LogFiles
from runtime.log_format import LineSplitter
from runtime.log_policy import LogPolicy, usual
from runtime.model import RuntimeSettings
from runtime.unfinished_line import UnfinishedLine, path_of

log = logging.getLogger(__name__)

BATCH_WAIT_MS = 20  # collects what comes meanwhile: bounds a chatty task to 50 writes a second a stream
WRITER_THREADS_MAX = 2
DRAIN_WAIT_MS_MAX = 2_000
STREAMS = ("out", "err")
OUTPUT_NAMES = {"out": "stdout", "err": "stderr"}
TAP_CHUNKS_MAX = 16
TAP_STALL_S_MAX = 30.0
VISITOR_STALL_S_MAX = 2.0
Output = trio.MemoryReceiveChannel[tuple[str, bytes]]


class _LiveLog:
    """One task's log while its FIFOs are read."""

    def __init__(
        self,
        files: LogFiles | None,
        readers: dict[str, fifo.FifoReader],
        folder: Path,
        *,
        writers: bool,
        compress: bool = False,
    ) -> None:
        self.files = files  # None: nothing is kept
        self.compress = compress
        self.archiving = False
        self.to_archive = False  # files have become older since the last look
        self.taps: dict[Output, tuple[trio.MemorySendChannel[tuple[str, bytes]], float]] = {}
        self.readers = readers
        self.unfinished = {stream: UnfinishedLine(folder, stream) for stream in STREAMS}
        self.writers = writers  # False: nobody opens the FIFOs any more
        self.scope = trio.CancelScope()
        self.lock = trio.Lock()
        self.changed = trio.Event()
        self.ended = trio.Event()
        self.dropped_bytes = 0

    def write(self, stream: str, records: bytes, unfinished: bytes) -> None:
        """Blocking; raises OSError. Killed in between, it leaves a line that counts as ended."""
        if self.files is None:
            return
        if records:
            self.files.append(records)
        self.unfinished[stream].keep(unfinished, log_reader.Position(*self.files.end))

    def close(self) -> None:
        if self.files is not None:
            self.files.close()
        for line in self.unfinished.values():
            line.close()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class TaskLogs:
    """Runs in `nursery`, which outlives every container that is attached."""

    def __init__(self, settings: RuntimeSettings, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._nursery = nursery
        self._live: dict[str, _LiveLog] = {}
        self._held: dict[str, trio.Event] = {}  # by task, set when a container of it begins to write
        self._complete: set[str] = set()  # nothing more can come of these
        self._limiter = trio.CapacityLimiter(WRITER_THREADS_MAX)
        self._archivers = trio.CapacityLimiter(1)

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
            folder = self.folder(task_id)
            files = LogFiles(folder, policy.size_bytes_max, policy.files_max) if policy.kept else None
        except OSError:
            for reader in readers.values():
                reader.close()
            raise
        live = _LiveLog(files, readers, folder, writers=writers, compress=policy.compress)
        self._live[task_id] = live
        if (held := self._held.get(log_ids.task_of(task_id))) is not None:
            held.set()
            self._held[log_ids.task_of(task_id)] = trio.Event()
        self._archive_soon(task_id, live)  # what an earlier daemon had no time for
        self._nursery.start_soon(self._read_all, task_id, live)

    def expect_end(self, task_id: str) -> None:
        """The task has ended: what its FIFOs hold is read (bounded wait), and then its log ends, even
        where the shim closed them before anybody opened them here."""
        live = self._live.get(task_id)
        if live is not None:
            deadline = trio.current_time() + DRAIN_WAIT_MS_MAX / 1000
            live.scope.deadline = min(live.scope.deadline, deadline)

    async def detach(self, task_id: str, *, drain: bool = True) -> None:
        """Stops reading and removes the FIFOs; `drain`: first waits (bounded) for every writer to close."""
        live = self._live.get(task_id)
        if live is not None:
            if drain:
                await self.ended(task_id)
            live.scope.cancel()
            await live.ended.wait()
        self._complete.discard(task_id)
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
        await self.detach(task_id, drain=False)
        await trio.to_thread.run_sync(shutil.rmtree, self.folder(task_id), True, limiter=self._limiter)

    async def _read_all(self, task_id: str, live: _LiveLog) -> None:
        try:
            with live.scope:
                async with trio.open_nursery() as nursery:
                    for stream in STREAMS:
                        nursery.start_soon(self._read_stream, task_id, live, stream, live.readers.get(stream))
        except* Exception as group:  # one task's log must never end the others'
            log.error("log of task %s stops: %s", task_id, group.exceptions[0])
        finally:
            self._live.pop(task_id, None)
            self._complete.add(task_id)
            live.close()
            for send, _ in live.taps.values():
                send.close()
            live.ended.set()
            live.wake()

    async def _read_stream(self, task_id: str, live: _LiveLog, stream: str, reader: fifo.FifoReader | None) -> None:
        if reader is None and live.writers:
            return  # a terminal has one stream only
        splitter = LineSplitter(stream, live.unfinished[stream].load())
        ended = False
        try:
            if reader is not None:
                await self._read_fifo(task_id, live, stream, reader, splitter)
            ended = True
        finally:
            # Also when the daemon goes down: what was taken out of the pipe must not be lost.
            with trio.CancelScope(shield=True):
                rest = b""
                while reader is not None and live.scope.cancel_called and len(rest) < fifo.PIPE_SIZE_BYTES:
                    data = reader.read_now()
                    if not data:
                        break
                    rest += splitter.feed(data, time.time_ns())
                if ended or live.scope.cancel_called:
                    rest += splitter.finish(time.time_ns())
                await self._keep(task_id, live, stream, rest, splitter.unfinished)
                if reader is not None:
                    reader.close()

    async def _read_fifo(
        self, task_id: str, live: _LiveLog, stream: str, reader: fifo.FifoReader, splitter: LineSplitter
    ) -> None:
        data = await reader.read_after_open() if live.writers else reader.read_now()
        while data:
            await _tell(live, stream, data)
            await self._keep(task_id, live, stream, splitter.feed(data, time.time_ns()), splitter.unfinished)
            if not live.taps:
                await trio.sleep(BATCH_WAIT_MS / 1000)
            data = await reader.read()

    async def _keep(self, task_id: str, live: _LiveLog, stream: str, records: bytes, unfinished: bytes) -> None:
        if live.files is None or (not records and unfinished == live.unfinished[stream].kept):
            return
        async with live.lock:
            try:
                await trio.to_thread.run_sync(live.write, stream, records, unfinished, limiter=self._limiter)
            except OSError as error:
                # The disk is full, say: the task goes on, its lines are counted as lost.
                if live.dropped_bytes == 0:
                    log.error("log of task %s loses lines: %s", task_id, error)
                live.dropped_bytes += len(records)
            else:
                live.dropped_bytes = 0
        if live.files.rotated:
            live.files.rotated = False
            self._archive_soon(task_id, live)
        if records:
            live.wake()

    def _archive_soon(self, task_id: str, live: _LiveLog) -> None:
        live.to_archive = live.compress
        if live.compress and not live.archiving:
            live.archiving = True
            self._nursery.start_soon(self._archive, task_id, live)

    async def _archive(self, task_id: str, live: _LiveLog) -> None:
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


async def _tell(live: _LiveLog, stream: str, data: bytes) -> None:
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
