"""Looks whether this host is short of something or has something broken, and tells the cluster (host_conditions.py)."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import trio

from daemon.agent.reports import Reports
from daemon.config import Config
from daemon.doctor import host_facts
from daemon.doctor.host_facts import CONTAINERD_FOLDER
from daemon.host_conditions import FileSystem, Readings, clock_condition, conditions_of
from proto.objects_pb2 import NodeCondition

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0
LOOK_S_MAX = 15.0  # a disk that takes longer does not work
WRITTEN_EVERY_S = 30.0
SOURCE, CLOCK_SOURCE = "host", "clock"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # another condition


class ConditionAgent:
    """`containerd_error`: why it does not answer; empty: it does. `run` it."""

    def __init__(self, config: Config, containerd_error: Callable[[], str], reports: Reports) -> None:
        self._folders = (
            (config.host.state_folder, "the state"),
            (config.storage.volumes_folder, "the folder of volumes"),
            (config.logs.folder, "the folder of logs"),
            (CONTAINERD_FOLDER, "containerd's folder"),
        )
        self._containerd_error = containerd_error
        self._reports = reports
        self._answered_s: float | None = None  # when containerd was last all right
        self._written_s = float("-inf")
        self._errors: dict[Path, str] = {}
        self._looked = threading.Event()
        self._looked.set()
        self._said: list[NodeCondition] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Once; a look that does not come back is said, and no other one is begun until it does."""
        if not self._looked.is_set():
            return
        now_s, error = trio.current_time(), self._containerd_error()
        if self._answered_s is None or not error:
            self._answered_s = now_s
        write = now_s - self._written_s >= WRITTEN_EVERY_S
        systems: list[FileSystem] | None = None
        with trio.move_on_after(LOOK_S_MAX):
            self._looked.clear()
            systems = await trio.to_thread.run_sync(self._file_systems, write, abandon_on_cancel=True)
        if systems is None:
            systems = [FileSystem("a folder of fairwayd", error="it does not answer")]
        elif write:
            self._written_s = now_s
        available, total = host_facts.memory_bytes()
        readings = Readings(
            memory_available=available / total if total else 1.0,
            memory_stalled=stalled(_text("/proc/pressure/memory"), "full", "avg60"),
            cpu_stalled=stalled(_text("/proc/pressure/cpu"), "some", "avg300"),
            pids_used=_threads_used(),
            file_systems=systems,
            containerd_error=error,
            containerd_silent_s=now_s - self._answered_s,
        )
        conditions = conditions_of(readings, {each.kind for each in self._said})
        for each in conditions:
            if each not in self._said:
                logger.warning("%s: %s", each.kind, each.message)
        self._said = conditions
        self._reports.conditions(SOURCE, conditions)

    def _file_systems(self, write: bool) -> list[FileSystem]:
        try:
            return [self._file_system(folder, where, write) for folder, where in self._folders if folder.is_dir()]
        finally:
            self._looked.set()

    def _file_system(self, folder: Path, where: str, write: bool) -> FileSystem:
        where = f"{where} ({folder})"
        try:
            status = os.statvfs(folder)
        except OSError as error:
            return FileSystem(where, error=error.strerror or str(error))
        read_only = bool(status.f_flag & os.ST_RDONLY)
        if write and not read_only:
            self._errors[folder] = write_error(folder)
        free = status.f_bavail / status.f_blocks if status.f_blocks else 1.0
        inodes = status.f_favail / status.f_files if status.f_files else 1.0
        return FileSystem(where, free, inodes, read_only, self._errors.get(folder, ""))


class ClockWatch:
    """Compares this host's clock with the leader's, which comes with its answers."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._said: list[NodeCondition] = []

    def answered(self, took_s: float, leader_unix_ms: int, now_unix_ms: int) -> None:
        """The leader's clock showed that within the last `took_s` seconds; 0: it does not tell."""
        if leader_unix_ms:
            half_ms = took_s * 500
            self._said = clock_condition(now_unix_ms - half_ms - leader_unix_ms, half_ms, bool(self._said))
            self._reports.conditions(CLOCK_SOURCE, self._said)


def write_error(folder: Path) -> str:
    """Why a small file cannot be written to disk there; empty: it can, or there is only no room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return "" if error.errno in _FULL else error.strerror or str(error)
    return ""


def stalled(text: str, line: str, window: str) -> float:
    """A share of the time, of a file of /proc/pressure; 0 where it does not say."""
    for words in map(str.split, text.splitlines()):
        if words and words[0] == line:
            for each in words[1:]:
                name, _, value = each.partition("=")
                if name == window:
                    return float(value) / 100
    return 0.0


def _threads_used() -> float:
    """Of those that the kernel gives at most (proc_loadavg(5), proc_sys_kernel(5))."""
    total = _text("/proc/loadavg").split()
    limits = [int(text) for text in map(_text, ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")) if text]
    if len(total) < 4 or not limits:
        return 0.0
    return int(total[3].partition("/")[2]) / min(limits)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
