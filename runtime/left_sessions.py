"""Ends what sessions (execution.py) of an earlier daemon have left in containers, and removes it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from proto import containerd_pb2 as api
from runtime import process_session
from runtime.connection import Connection
from runtime.errors import NotFound, RuntimeFailure, Unavailable

log = logging.getLogger(__name__)

END_MS_MAX = 10_000
KILL_POLL_MS = 20
OWNER = "process"  # file: container, then of a process that was started its id and when it began


@dataclass(frozen=True)
class Left:
    """One session's folder, and the descriptors of its FIFOs."""

    folder: Path
    files: tuple[int, ...]


def note_owner(folder: Path, container_id: str, process: tuple[int, int] | None = None) -> None:
    """For the daemon that finds the folder. On a tmpfs, where it need not be written at once."""
    (folder / OWNER).write_text(" ".join([container_id, *map(str, process or ())]))


def left_behind(exec_folder: Path) -> list[Left]:
    """What is there, with its FIFOs open again: a shim that is about to start a process waits for their other ends, and
    answers nothing meanwhile, not even whether its containers run."""
    folders = list(exec_folder.iterdir()) if exec_folder.is_dir() else []
    return [Left(folder, _held(folder)) for folder in folders]


async def end_left(connection: Connection, left: Sequence[Left]) -> None:
    """Kills what still runs of such sessions, and removes them. Waits for containerd."""
    for each in left:
        try:
            await _end(connection, each.folder)
        finally:
            for file in each.files:
                os.close(file)
        shutil.rmtree(each.folder, ignore_errors=True)


async def delete_process(connection: Connection, container_id: str, exec_id: str) -> None:
    """Until containerd knows nothing of it; it is killed while it runs. The caller bounds it."""
    delete = api.DeleteProcessRequest(container_id=container_id, exec_id=exec_id)
    kill = api.KillRequest(container_id=container_id, exec_id=exec_id, signal=signal.SIGKILL)
    while True:
        try:
            await connection.do("tasks.v1.Tasks/DeleteProcess", delete)
            return
        except NotFound:
            return
        except Unavailable:
            await connection.wait_healthy()
        except RuntimeFailure:  # it runs, or its end has yet to be noticed
            with suppress(RuntimeFailure):
                await connection.do("tasks.v1.Tasks/Kill", kill)
            await trio.sleep(KILL_POLL_MS / 1000)


async def _end(connection: Connection, folder: Path) -> None:
    try:
        container_id, *process = (folder / OWNER).read_text().split()
    except (OSError, ValueError):  # containerd was not told of it as yet
        return
    if len(process) == 2:
        await trio.to_thread.run_sync(process_session.kill_session, int(process[0]), int(process[1]))
    await connection.wait_healthy()  # however long that takes
    with trio.move_on_after(END_MS_MAX / 1000) as scope:
        await delete_process(connection, container_id, folder.name)
    if scope.cancelled_caught:
        log.warning("process %s of container %s is left", folder.name, container_id)


def _held(folder: Path) -> tuple[int, ...]:
    """For both directions (fifo(7)), so that neither waits for the other."""
    files = []
    for path in folder.iterdir():
        if path.is_fifo():
            with suppress(OSError):
                files.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    return tuple(files)
