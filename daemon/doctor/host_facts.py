"""Looks at this host: disks, memory, tables, clock, names; blocking parts run in worker threads. No judgement."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

import trio

from daemon.config import Config
from daemon.doctor.host_findings_plan import Disk
from net import path_attempts

CONTAINERD_FOLDER = Path("/var/lib/containerd")
UPSTREAM_SECONDS_MAX = 1.0
CONTAINERD_SECONDS_MAX = 1.0
UPSTREAMS_ASKED_MAX = 3
_TIMEX_BYTES = 256
_TIME_ERROR = 5


def disks(config: Config) -> list[Disk]:
    """The file systems that fairwayd and containerd write to, each once."""
    places = (
        (config.host.state_folder, "state"),
        (config.storage.volumes_folder, "volumes"),
        (config.logs.folder, "logs"),
        (CONTAINERD_FOLDER, "images"),
        (config.host.run_folder, "sockets"),
    )
    found: dict[int, Disk] = {}
    for path, what in places:
        try:
            device, status = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        size = status.f_frsize
        disk = Disk(str(path), what, status.f_bavail * size, status.f_blocks * size, status.f_favail, status.f_files)
        found.setdefault(device, disk)
    return list(found.values())


def containerd_error(config: Config) -> str:
    """Why nothing answers at containerd's socket, on a host whose daemon does not use it yet; empty: it answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
            unix.settimeout(CONTAINERD_SECONDS_MAX)
            unix.connect(str(config.containerd.socket))
    except OSError as error:
        return f"{config.containerd.socket}: {error.strerror or error}"
    return ""


def memory_bytes() -> tuple[int, int]:
    """(available, in all) of proc_meminfo(5); 0 where it does not say."""
    values = {}
    for line in _text("/proc/meminfo").splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdecimal():
            values[words[0]] = int(words[1]) * 1024
    return values.get("MemAvailable:", 0), values.get("MemTotal:", 0)


def descriptors() -> tuple[int, int, int, int]:
    """(own, own limit, the system's, the system's limit)."""
    try:
        own = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path for each of thousands would cost more
    except OSError:
        own = 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    numbers = _text("/proc/sys/fs/file-nr").split()
    used, most = (int(numbers[0]), int(numbers[2])) if len(numbers) == 3 else (0, 0)
    return own, 0 if limit == resource.RLIM_INFINITY else limit, used, most


def clock_unsynchronised() -> bool:
    """What the kernel says of its clock (adjtimex(2)); False where it does not say."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only asks
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    return bool(state == _TIME_ERROR)


def forwarding() -> bool:
    """Whether the kernel forwards IPv4 packets."""
    return _text("/proc/sys/net/ipv4/ip_forward").strip() != "0"


def process_memory_bytes() -> int:
    """Resident memory of this process (proc_pid_statm(5))."""
    words = _text("/proc/self/statm").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 else 0


async def silent_upstreams(servers: Sequence[str]) -> list[str]:
    """Those of the upstream name servers that do not answer a question in time."""
    silent: list[str] = []

    async def ask(server: str) -> None:
        if not await path_attempts.answers(server, UPSTREAM_SECONDS_MAX):
            silent.append(server)

    async with trio.open_nursery() as nursery:
        for server in servers[:UPSTREAMS_ASKED_MAX]:
            nursery.start_soon(ask, server)
    return sorted(silent)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
