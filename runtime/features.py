"""What the host must have so that containers run, checked and said in words."""

from __future__ import annotations

import functools
import logging
import re
import shutil
import subprocess
from pathlib import Path

import trio

from runtime import capabilities, cgroup, user_namespaces

log = logging.getLogger(__name__)

CONTAINERD_VERSION_MIN = (1, 6)
RUNC_VERSION_MIN = (1, 1)
APPARMOR, USER_NAMESPACES = "AppArmor", "user namespaces"
PROGRAM_TIMEOUT_S = 10


async def check(containerd_version: str = "") -> list[str]:
    """What is missing, one sentence each; empty when all is well.

    `containerd_version`: of the running one where it is known, else the installed program is asked.
    """
    return await trio.to_thread.run_sync(_check, containerd_version)


def bounding_capabilities() -> tuple[str, ...]:
    """Those that the kernel lets this process hand on."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return capabilities.from_mask(int(line.split()[1], 16))
    return capabilities.ALL


def has_seccomp() -> bool:
    """Whether the kernel filters system calls (CONFIG_SECCOMP_FILTER)."""
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def has_apparmor() -> bool:
    """Whether the kernel confines programs by profiles of AppArmor (CONFIG_SECURITY_APPARMOR, and it is on)."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        return False


@functools.lru_cache(maxsize=1)
def lacking(user_ids_first: int, images: Path) -> tuple[str, ...]:
    """What only some containers need, and this host does not have; looked at once, blocking. `images`: a folder on the
    file system of images and volumes."""
    found = [] if has_apparmor() else [APPARMOR]
    if problem := user_namespaces.check(user_ids_first, images):
        log.info("containers cannot have user namespaces here: %s", problem)
        found.append(USER_NAMESPACES)
    return tuple(found)


def _check(containerd_version: str) -> list[str]:
    missing = []
    if "overlay" not in Path("/proc/filesystems").read_text():
        missing.append("the kernel has no overlay file system: load it (modprobe overlay)")
    if not has_seccomp():
        missing.append("the kernel cannot filter system calls (CONFIG_SECCOMP_FILTER)")
    try:
        host = cgroup.detect()
    except OSError as error:
        missing.append(f"control groups are not mounted at {cgroup.CGROUP_FOLDER}: {error.strerror}")
    else:
        missing += [
            f"the control group controller {name} is not available (cgroup {host.version})"
            for name in cgroup.NEEDED_CONTROLLERS
            if name not in host.controllers
        ]
    missing += _program("containerd", CONTAINERD_VERSION_MIN, containerd_version)
    missing += _program("runc", RUNC_VERSION_MIN)
    missing += _program("containerd-shim-runc-v2", None)
    return missing


def _program(name: str, least: tuple[int, int] | None, known: str = "") -> list[str]:
    if shutil.which(name) is None and not known:
        return [f"the program {name} is not installed"]
    if least is None:
        return []
    try:
        text = known or _printed([name, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        return [f"the program {name} does not run: {error}"]
    found = re.search(r"(\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < least:
        wanted = ".".join(str(number) for number in least)
        return [f"{name} is {text.splitlines()[0] if text else 'of an unknown version'}; {wanted} is needed"]
    return []


def _printed(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True)
    return result.stdout
