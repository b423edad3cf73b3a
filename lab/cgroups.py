"""The cgroups of a lab and of each of its hosts, in every hierarchy of the machine (v1 and v2)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
# Daemons of a host join these; cpuset would first need its CPUs and memory nodes set, runc does so itself.
_JOINED = ("memory", "cpu", "cpuacct", "pids", "unified", "systemd")
_REMOVE_POLL_SECONDS = 0.02


def hierarchies() -> list[Path]:
    """Roots of all mounted cgroup hierarchies: one on a v2 host, one a controller on a v1 host."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    if not _ROOT.is_dir():
        return []
    return sorted(entry for entry in _ROOT.iterdir() if (entry / "cgroup.procs").exists())


def cgroup_parent(lab: str, host: str) -> str:
    """Where the containers of a host go: fairwayd's [containerd] cgroup_parent."""
    return f"/fairway-lab-{lab}/{host}"


def join(parent: str, pid: int) -> None:
    """Moves a process into `parent`/system; a hierarchy that refuses is left alone."""
    for root in hierarchies():
        if root != _ROOT and root.name not in _JOINED:
            continue
        folder = root / parent.lstrip("/") / "system"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cgroup.procs").write_text(str(pid))


def remove(parent: str, timeout_seconds: float = 10.0) -> list[str]:
    """Ends whatever still runs below `parent` and removes it; the folders that would not go are returned."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = [folder for root in hierarchies() for folder in _folders(root / parent.lstrip("/"))]
        for folder in left:
            _end_processes(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
        left = [folder for folder in left if folder.is_dir()]
        if not left or time.monotonic() > deadline:
            return [str(folder) for folder in left]
        time.sleep(_REMOVE_POLL_SECONDS)


def _folders(top: Path) -> list[Path]:
    """`top` and all below it, deepest first; empty where there is none."""
    if not top.is_dir():
        return []
    return [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]


def _end_processes(folder: Path) -> None:
    try:
        pids = (folder / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in pids:
        if int(pid) not in (0, os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
