"""The mounts, devices and hidden paths of a container's OCI runtime specification. Pure."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from runtime.errors import InvalidRequest
from runtime.model import BindMount, TmpfsMount

SHM_SIZE_BYTES = 64 * 1024 * 1024
TMPFS_SIZE_BYTES = 64 * 1024 * 1024
TMPFS_MODE = 0o1777
INIT_TARGET = "/sbin/docker-init"

# What tells of the host or reaches it from inside /proc and /sys.
MASKED_PATHS = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
READ_ONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# (type, major, minor): null, zero, full, random, urandom, tty, console, ptmx, any pty; see devices.txt of
# the kernel's documentation. The container may also make (but not open) any device file.
_DEVICES: tuple[tuple[int, int | None], ...] = (
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (136, None),
)


def device_rules() -> list[dict[str, Any]]:
    """`linux.resources.devices`: nothing but the harmless ones."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in _DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def base_mounts(cgroup_version: str, shm_size_bytes: int = 0) -> list[dict[str, Any]]:
    """The kernel's file systems that every container has; `shm_size_bytes` of /dev/shm, 0: the usual."""
    hard = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", hard),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", [*hard, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*hard, "ro", *_cgroup_options(cgroup_version)]),
        _mount("/dev/mqueue", "mqueue", "mqueue", hard),
        _mount("/dev/shm", "tmpfs", "shm", [*hard, "mode=1777", f"size={shm_size_bytes or SHM_SIZE_BYTES}"]),  # noqa: S108
    ]


def task_mounts(
    mounts: tuple[BindMount | TmpfsMount, ...], files: tuple[BindMount, ...], init: Path | None
) -> list[dict[str, Any]]:
    """Those of the request: outer paths before inner ones, then single files, then the init program.

    Raises InvalidRequest on a target that is not absolute, is the root, or is named twice.
    """
    seen: set[str] = set()
    entries = []
    for mount in sorted(mounts, key=lambda mount: clean_target(mount.target).count("/")):
        target = clean_target(mount.target)
        if target in seen:
            raise InvalidRequest(f"two mounts have the target {target}")
        seen.add(target)
        if isinstance(mount, TmpfsMount):
            entries.append(_tmpfs(mount, target))
        else:
            entries.append(_bind(mount.source, target, mount.read_only))
    entries += [
        _bind(file.source, clean_target(file.target), file.read_only)
        for file in files
        if clean_target(file.target) not in seen
    ]
    if init is not None:
        entries.append(_bind(init, INIT_TARGET, read_only=True))
    return entries


def clean_target(target: str) -> str:
    """An absolute path without . and .. parts; raises InvalidRequest where it is none, or the root."""
    cleaned = posixpath.normpath("/" + target.lstrip("/"))
    if not target.startswith("/") or cleaned == "/":
        raise InvalidRequest(f"mount target {target!r}: it must be an absolute path below /")
    return cleaned


def _cgroup_options(version: str) -> list[str]:
    return ["relatime"] if version == "v1" else []


def _tmpfs(mount: TmpfsMount, target: str) -> dict[str, Any]:
    options = [
        "nosuid",
        "noexec",
        "nodev",
        f"size={mount.size_bytes or TMPFS_SIZE_BYTES}",
        f"mode={mount.mode or TMPFS_MODE:o}",
    ]
    return _mount(target, "tmpfs", "tmpfs", [*options, *(["ro"] if mount.read_only else [])])


def _bind(source: Path, target: str, read_only: bool) -> dict[str, Any]:
    return _mount(target, "bind", str(source), ["rbind", "rprivate", "ro" if read_only else "rw"])


def _mount(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}
