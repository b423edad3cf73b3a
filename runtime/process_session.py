"""Ends all processes of a session (setsid(2)), those too whose parents have gone. Blocking.

runc makes what it executes in a container the leader of a session: what a shell has begun there stays in it, unless it
was meant to outlive the shell and has made a session of its own.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_SESSION, _START_TIME = 3, 19  # of the fields of proc_pid_stat(5) that follow the name
ROUNDS_MAX = 10


def start_time(process_id: int) -> int:
    """In ticks since the host was started; 0 where there is no such process."""
    fields = stat_fields(process_id)
    return int(fields[_START_TIME]) if fields else 0


def kill_session(leader: int, leader_start_time: int) -> int:
    """SIGKILL to all of the session of `leader`, which may have ended; how many were killed.

    The kernel gives no process the number of a session that has members, so one that has it and began at another time
    means that the session is empty.
    """
    found_time = start_time(leader)
    if leader <= 1 or found_time not in (0, leader_start_time):
        return 0
    killed: set[int] = set()
    for _ in range(ROUNDS_MAX):  # one may have forked meanwhile
        members = [each for each in _process_ids() if each not in killed and _session_of(each) == leader]
        if not members:
            break
        for process_id in members:
            _kill(process_id, leader)
        killed.update(members)
    return len(killed)


def _kill(process_id: int, leader: int) -> None:
    with suppress(OSError):
        held = os.pidfd_open(process_id)
        try:
            if _session_of(process_id) == leader:  # the number may have been given to another one
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _session_of(process_id: int) -> int:
    fields = stat_fields(process_id)
    return int(fields[_SESSION]) if fields else 0


def stat_fields(process_id: int) -> list[str]:
    """Of proc_pid_stat(5) what follows the name, which may hold anything, brackets too: the state first. Empty: there
    is no such process."""
    try:
        return (_PROC / str(process_id) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
