"""Real sessions of real processes."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from runtime.process_session import kill_session, start_time

TREE = "sleep 1000 & (sleep 1000 & sleep 1000 &); wait"


def members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found.extend([int(entry.name)] if state != "Z" else [])
    return found


def test_all_of_a_session_ends_and_nothing_else() -> None:
    with subprocess.Popen(["sh", "-c", f"{TREE}"], start_new_session=True) as shell:
        began = start_time(shell.pid)
        other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        try:
            while len(members(shell.pid)) < 4:
                assert shell.poll() is None
            assert kill_session(shell.pid, began + 1) == 0  # another one that has got its number
            assert kill_session(shell.pid, began) >= 4
            assert shell.wait(timeout=60) == -9
            while members(shell.pid):
                pass
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


def test_what_a_leader_that_has_ended_has_left_is_found() -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & exec sleep 0.2"], start_new_session=True)
    began = start_time(shell.pid)
    shell.wait(timeout=60)
    assert start_time(shell.pid) == 0
    assert kill_session(shell.pid, began) == 1
    assert kill_session(shell.pid, began) in (0, 1)  # it may not have been reaped as yet
