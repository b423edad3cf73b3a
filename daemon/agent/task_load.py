"""How busy a task is: its TCP sockets and its CPU time, read from /proc and the control groups in microseconds.

Sources: proc_pid_net(5) sockstat, whose counts are of the process's network namespace; cgroups(7) cpu.stat (version 2)
and the kernel's Documentation/admin-guide/cgroup-v1/cpuacct.rst.
"""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def connections_of(process_id: int) -> int | None:
    """TCP sockets in use in the process's network namespace, listening ones and its own connections too; None: gone."""
    count = 0
    for name, prefix in (("sockstat", "TCP:"), ("sockstat6", "TCP6:")):
        try:
            lines = (PROC / str(process_id) / "net" / name).read_text().splitlines()
        except FileNotFoundError:
            if name == "sockstat6" and count:
                break  # a kernel without IPv6
            return None
        except OSError:
            return None
        for line in lines:
            if line.startswith(prefix):
                count += int(line.split()[2])
    return count


def memory_bytes_of(process_id: int) -> int | None:
    """Memory of a process's control group without file pages that were not used lately: the kernel can drop these at
    once (memory.stat, inactive_file). None: gone, or not told."""
    try:
        lines = (PROC / str(process_id) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        try:
            if "memory" in controllers.split(","):
                return _without_idle(CGROUPS / controllers / path.lstrip("/"), "memory.usage_in_bytes", "total_")
            if number == "0":
                return _without_idle(CGROUPS / path.lstrip("/"), "memory.current", "")
        except (OSError, ValueError):
            continue  # the other version's hierarchy may tell
    return None


def _without_idle(group: Path, usage: str, prefix: str) -> int:
    used = int((group / usage).read_text())
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == f"{prefix}inactive_file":
            return max(used - int(value), 0)
    return used


def cpu_seconds_of(process_id: int) -> float | None:
    """CPU time that the control group of a process has used since it was made; None: gone, or not told."""
    try:
        lines = (PROC / str(process_id) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        try:
            if "cpuacct" in controllers.split(","):
                return int((CGROUPS / controllers / path.lstrip("/") / "cpuacct.usage").read_text()) / 1e9
            if number == "0":
                usage, _, _ = (CGROUPS / path.lstrip("/") / "cpu.stat").read_text().partition("\n")
                return int(usage.removeprefix("usage_usec ")) / 1e6
        except (OSError, ValueError):
            continue  # the other version's hierarchy may tell
    return None
