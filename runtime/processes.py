"""The processes of a container as the kernel has them (proc(5), cgroups(7))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from proto.hands_pb2 import ListProcessesReply, TaskProcess
from runtime.cgroup import Groups
from runtime.errors import NotFound
from runtime.id_map import IdMap
from runtime.openat2 import open_in_root
from runtime.process_session import stat_fields
from runtime.runtime import Runtime

PROC = Path("/proc")
PROCESSES_MAX = 1_000
SAMPLE_MS = 300
COMMAND_BYTES_MAX = 4096
ACCOUNTS_BYTES_MAX = 256 * 1024
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sampled:
    """CPU time of each process by its id on the host, when it was looked at."""

    when_ns: int
    cpu_ns: Mapping[int, int]


async def processes_of(runtime: Runtime, container_id: str) -> ListProcessesReply:
    """With what they used of the CPU within SAMPLE_MS. Raises NotFound where it does not run."""
    first = await runtime.first_process(container_id)
    groups = runtime.groups

    def begin() -> tuple[list[int], Sampled]:
        ids = process_ids(groups, container_id)
        return ids, sample(ids[:PROCESSES_MAX])

    ids, before = await trio.to_thread.run_sync(begin)
    await trio.sleep(SAMPLE_MS / 1000)

    def end() -> list[TaskProcess]:
        told = ids[:PROCESSES_MAX]
        return describe(told, before, sample(told), first)

    try:
        found = await trio.to_thread.run_sync(end)
    except OSError as error:
        raise NotFound(f"container {container_id} does not run any more") from error
    return ListProcessesReply(processes=found, more=len(ids) > PROCESSES_MAX)


def process_ids(groups: Groups, container_id: str) -> list[int]:
    """Ids on the host, of groups within the container's too; sorted."""
    for folder in groups.of(container_id):
        found: set[int] = set()
        for path in (folder, *(each for each in folder.rglob("*") if each.is_dir())):
            try:
                found |= {int(line) for line in (path / "cgroup.procs").read_text().split()}
            except OSError:
                continue
        if found:
            return sorted(found)
    return []


def sample(ids: Iterable[int]) -> Sampled:
    """Of those that still run."""
    times = {}
    for number in ids:
        fields = stat_fields(number)
        if fields:
            times[number] = (int(fields[11]) + int(fields[12])) * 1_000_000_000 // _TICKS_PER_S
    return Sampled(time.monotonic_ns(), times)


def describe(ids: Iterable[int], before: Sampled, after: Sampled, first: int) -> list[TaskProcess]:
    """All of `ids` that still run, by their id in the container. `first` is the container's first process: names of
    users are those of its own /etc/passwd."""
    names = _user_names(first)
    users = IdMap.of_process(first, "uid")
    inside: dict[int, int] = {}
    found = []
    span_ns = max(after.when_ns - before.when_ns, 1)
    uptime_s = float((PROC / "uptime").read_text().split()[0])
    for number in ids:
        fields, status = stat_fields(number), _status(number)
        if not fields or not status:
            continue
        inside[number] = int(status.get("NSpid", str(number)).split()[-1])
        used_ns = after.cpu_ns.get(number, 0) - before.cpu_ns.get(number, after.cpu_ns.get(number, 0))
        user = users.inside(int(status["Uid"].split()[1]))
        found.append(
            TaskProcess(
                id=inside[number],
                parent=int(fields[1]),
                host_id=number,
                user=names.get(user, str(user)),
                state=fields[0],
                cpu_millis=max(used_ns, 0) * 1000 // span_ns,
                memory_bytes=int(status.get("VmRSS", "0").split()[0]) * 1024,
                age_ms=max(int((uptime_s - int(fields[19]) / _TICKS_PER_S) * 1000), 0),
                command=_command(number) or f"[{status['Name']}]",
            )
        )
    for process in found:
        process.parent = inside.get(process.parent, 0)
    return sorted(found, key=lambda process: process.id)


def _status(number: int) -> dict[str, str]:
    try:
        lines = (PROC / str(number) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _command(number: int) -> str:
    try:
        with (PROC / str(number) / "cmdline").open("rb") as file:
            return file.read(COMMAND_BYTES_MAX).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _user_names(first: int) -> dict[int, str]:
    try:
        root = os.open(PROC / str(first) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        with os.fdopen(open_in_root(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            rows = [line.split(":") for line in file.read(ACCOUNTS_BYTES_MAX).decode(errors="replace").splitlines()]
    except OSError:
        return {}
    finally:
        os.close(root)
    return {int(row[2]): row[0] for row in reversed(rows) if len(row) > 2 and row[2].isdigit()}
