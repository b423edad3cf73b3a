"""Processes that outlive the command that started them: who they are, whether they live, their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lab.layout import LabError

_GONE_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class ProcessMark:
    """A process beyond doubt: its id, and when it began (clock ticks since the machine's start)."""

    pid: int
    started_ticks: int


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (proc(5): field 3 is index 0); None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def mark(pid: int) -> ProcessMark:
    """Raises LabError where there is no such process (any more)."""
    fields = _stat_fields(pid)
    if fields is None:
        raise LabError(f"process {pid} ended as soon as it was started")
    return ProcessMark(pid, int(fields[19]))


def alive(process: ProcessMark) -> bool:
    """False also for a zombie: the first process of a PID namespace becomes one only after all others
    of the namespace have ended (pid_namespaces(7)), whenever it may be reaped."""
    fields = _stat_fields(process.pid)
    return fields is not None and int(fields[19]) == process.started_ticks and fields[0] not in "ZX"


def kill_and_wait(process: ProcessMark, timeout_seconds: float = 20.0) -> None:
    """SIGKILL, and waits for the end; a process that is gone is fine. Raises LabError at the time limit."""
    deadline = time.monotonic() + timeout_seconds
    while alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(f"process {process.pid} does not end {timeout_seconds:.0f} s after SIGKILL")
        time.sleep(_GONE_POLL_SECONDS)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def namespace_pids(init: ProcessMark) -> dict[int, int]:
    """Id inside the PID namespace whose first process is `init` -> id on the machine."""
    try:
        namespace = Path(f"/proc/{init.pid}/ns/pid").readlink()
    except OSError:
        return {}
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/pid").readlink() != namespace:
                continue
            status = (entry / "status").read_text()
        except OSError:
            continue  # it ended while we looked
        for line in status.splitlines():
            if line.startswith("NSpid:"):
                found[int(line.split()[-1])] = int(entry.name)
    return found
