"""What a container uses, from its control groups and its network namespace.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{cpuacct,memory,pids,blkio-controller}.rst;
proc_pid_net(5) for the interfaces' counters, whose first two columns of bytes are received and sent.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import trio

from proto.hands_pb2 import TaskUsage
from runtime.cgroup import Groups
from runtime.runtime import Runtime

UNLIMITED_BYTES_MIN = 1 << 60  # version 1 says a number near 2^63 where there is no limit


async def usage_of(runtime: Runtime, container_ids: Collection[str]) -> list[TaskUsage]:
    """Of those that run. Raises RuntimeFailure."""
    running = [each for each in await runtime.list() if each.id in container_ids and each.state == "running"]
    groups = runtime.groups
    return await trio.to_thread.run_sync(lambda: [read_usage(groups, each.id, each.pid) for each in running])


def read_usage(groups: Groups, container_id: str, process_id: int) -> TaskUsage:
    """Of a running container whose first process is `process_id`; what the kernel does not tell is 0."""
    folders = [folder for folder in groups.of(container_id) if folder.is_dir()]
    usage = TaskUsage(task_id=container_id, sampled_ns=time.monotonic_ns())
    read = _read_v2 if groups.host.version == "v2" else _read_v1
    read(folders, usage)
    usage.received_bytes, usage.sent_bytes = network_bytes(_text([Path(f"/proc/{process_id}/net")], "dev"))
    return usage


def network_bytes(text: str) -> tuple[int, int]:
    """(received, sent) of all interfaces but the loopback, from the content of /proc/PID/net/dev."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) >= 9:
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def _read_v2(folders: Sequence[Path], usage: TaskUsage) -> None:
    usage.cpu_ns = _field(_text(folders, "cpu.stat"), "usage_usec") * 1000
    cache = _field(_text(folders, "memory.stat"), "inactive_file")
    usage.memory_bytes = max(_number(_text(folders, "memory.current")) - cache, 0)
    usage.memory_limit_bytes = _number(_text(folders, "memory.max"))
    usage.processes = _number(_text(folders, "pids.current"))
    for line in _text(folders, "io.stat").splitlines():
        fields = dict(each.split("=", 1) for each in line.split()[1:] if "=" in each)
        usage.read_bytes += int(fields.get("rbytes", 0))
        usage.written_bytes += int(fields.get("wbytes", 0))


def _read_v1(folders: Sequence[Path], usage: TaskUsage) -> None:
    usage.cpu_ns = _number(_text(folders, "cpuacct.usage"))
    cache = _field(_text(folders, "memory.stat"), "total_inactive_file")
    usage.memory_bytes = max(_number(_text(folders, "memory.usage_in_bytes")) - cache, 0)
    limit = _number(_text(folders, "memory.limit_in_bytes"))
    usage.memory_limit_bytes = limit if limit < UNLIMITED_BYTES_MIN else 0
    usage.processes = _number(_text(folders, "pids.current"))
    names = ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")
    for fields in _rows(next(filter(None, (_text(folders, name) for name in names)), "")):
        if len(fields) == 3 and fields[1] == "Read":
            usage.read_bytes += int(fields[2])
        elif len(fields) == 3 and fields[1] == "Write":
            usage.written_bytes += int(fields[2])


def _text(folders: Iterable[Path], name: str) -> str:
    """The first that there is; "" where it is gone."""
    for folder in folders:
        try:
            return (folder / name).read_text()
        except OSError:
            continue
    return ""


def _rows(text: str) -> Iterator[list[str]]:
    return (line.split() for line in text.splitlines())


def _field(text: str, name: str) -> int:
    return next((int(fields[1]) for fields in _rows(text) if len(fields) == 2 and fields[0] == name), 0)


def _number(text: str) -> int:
    """0 for "max", and for what is not there."""
    word = text.strip()
    return int(word) if word.isdigit() else 0
