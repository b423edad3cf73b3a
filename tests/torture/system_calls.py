"""Disks that are slow or fail: strace has the kernel delay or refuse a daemon's fsync and fdatasync."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

CALLS = "fsync,fdatasync"
END_SECONDS_MAX = 20.0


@contextlib.contextmanager
def injected(pids: list[int], what: str) -> Iterator[None]:
    """`what` as strace(1)'s --inject has it, "error=EIO" or "delay_enter=200000" (microseconds)."""
    tracers: list[subprocess.Popen[bytes]] = []
    try:
        for pid in pids:
            command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", f"trace={CALLS}"]
            command += ["-e", f"inject={CALLS}:{what}"]
            tracers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        yield
    finally:
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)  # it lets the daemon go
            try:
                tracer.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()
