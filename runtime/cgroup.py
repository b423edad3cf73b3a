"""Which control groups the host has, and reading or removing those of one container (cgroups(7))."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.process_session import start_time

log = logging.getLogger(__name__)

CGROUP_FOLDER = Path("/sys/fs/cgroup")
ONLINE_CORES = Path("/sys/devices/system/cpu/online")
NEEDED_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class CgroupHost:
    version: str  # "v1" (also hybrid) or "v2"
    controllers: tuple[str, ...]
    swap_accounting: bool  # memory.memsw.* or memory.swap.* exist
    cores: str = ""  # that are online, "0-3,6"; empty: not known


@dataclass(frozen=True)
class Groups:
    """Of all containers of a runtime."""

    host: CgroupHost
    parent: str

    def of(self, container_id: str) -> list[Path]:
        """Folders of one of them; they need not exist."""
        return container_folders(self.host, self.parent, container_id)


def detect(folder: Path = CGROUP_FOLDER) -> CgroupHost:
    """Looks at the mounts; `folder` is where they are."""
    unified = folder / "cgroup.controllers"
    if unified.is_file():
        controllers = tuple(unified.read_text().split())
        # The root has no memory.swap.*: swap accounting shows in any group below it.
        swap = any(folder.glob("*/memory.swap.max"))
        return CgroupHost("v2", (*controllers, "devices", "freezer"), swap, _cores())
    present = tuple(sorted(path.name for path in folder.iterdir() if (path / "cgroup.procs").exists()))
    swap = (folder / "memory" / "memory.memsw.limit_in_bytes").exists()
    return CgroupHost("v1", tuple(name for name in present if name not in ("systemd", "unified")), swap, _cores())


def _cores() -> str:
    try:
        return ONLINE_CORES.read_text().strip()
    except OSError:
        return ""


def container_folders(host: CgroupHost, parent: str, container_id: str) -> list[Path]:
    """Where a container's groups are; they need not exist."""
    relative = f"{parent.strip('/')}/{container_id}"
    if host.version == "v2":
        return [CGROUP_FOLDER / relative]
    hierarchies = sorted(path for path in CGROUP_FOLDER.iterdir() if (path / "cgroup.procs").exists())
    return [hierarchy / relative for hierarchy in hierarchies]


def killed_for_memory(host: CgroupHost, parent: str, container_id: str) -> bool:
    """True where the kernel killed a process of the container for want of memory; False once removed."""
    if host.version == "v2":
        path = CGROUP_FOLDER / parent.strip("/") / container_id / "memory.events"
    else:
        path = CGROUP_FOLDER / "memory" / parent.strip("/") / container_id / "memory.oom_control"
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)


def remove(host: CgroupHost, parent: str, container_id: str) -> bool:
    """Kills what is left in a container's groups and removes them; True where nothing is left."""
    clean = True
    for folder in container_folders(host, parent, container_id):
        # From the bottom up. runc removes them too: what is gone meanwhile is passed over.
        for group, _, _ in os.walk(folder, topdown=False):
            clean &= _remove_one(Path(group))
    return clean


def _remove_one(group: Path) -> bool:
    try:
        for line in (group / "cgroup.procs").read_text().split():
            os.kill(int(line), signal.SIGKILL)
    except (OSError, ValueError) as error:
        log.debug("%s: %s", group, error)
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def first_process(folders: Iterable[Path]) -> int:
    """Id of the process in these groups that is number 1 of a process id namespace (proc_pid_status(5), NSpid), or of
    the one that began first where that namespace is another container's; 0: none runs."""
    for folder in folders:
        found: list[tuple[int, int]] = []
        with suppress(OSError):
            for process_id in map(int, (folder / "cgroup.procs").read_text().split()):
                with suppress(OSError):
                    status = Path(f"/proc/{process_id}/status").read_text()
                    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                    if len(numbers) > 1 and numbers[-1] == "1":
                        return process_id
                    if len(numbers) > 1:
                        found.append((start_time(process_id), process_id))
        if found:
            return min(found)[1]
    return 0
