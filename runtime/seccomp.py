"""The default system call filter: an allow-list; all else fails with EPERM.

`seccomp_syscalls.json` names the calls. "always": those that act on nothing but what the process already
has, taken from the kernel's unistd.h (x86, arm64) less those that reach the whole kernel: keyrings, kexec,
modules, swap, io_uring, userfaultfd, BPF, raw I/O, clocks, mounts, namespaces, handles to any inode.
"with_capability": those that are only useful, and only allowed, with a capability.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (linux/sched.h).
CLONE_NAMESPACE_FLAGS = 0x7E02_0000
EPERM = 1
ENOSYS = 38
AF_VSOCK = 40  # would reach the hypervisor past every network rule
# PER_LINUX, PER_LINUX32, UNAME26 with each, and the query (linux/personality.h).
PERSONALITIES = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)
ARCHITECTURES = {
    "amd64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "arm64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def default_profile(architecture: str, capabilities: Collection[str]) -> dict[str, Any]:
    """`linux.seccomp` of the OCI runtime specification for a process with these capabilities."""
    return _profile(architecture, frozenset(capabilities))


@functools.lru_cache(maxsize=64)
def _profile(architecture: str, capabilities: frozenset[str]) -> dict[str, Any]:
    calls = _system_calls()
    names = set(calls["always"])
    for capability, more in calls["with_capability"].items():
        if capability in capabilities:
            names.update(more)
    rules: list[dict[str, Any]] = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
    rules += [_only(["personality"], 0, value, "SCMP_CMP_EQ") for value in PERSONALITIES]
    rules.append(_only(["socket"], 0, AF_VSOCK, "SCMP_CMP_NE"))
    if "CAP_SYS_ADMIN" in capabilities:
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW"})
    else:
        masked = _only(["clone"], 0, CLONE_NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")
        masked["args"][0]["valueTwo"] = 0
        rules.append(masked)
        # Its flags are behind a pointer that the filter cannot read; libc falls back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES.get(architecture, []),
        "syscalls": rules,
    }


def _only(names: list[str], index: int, value: int, comparison: str) -> dict[str, Any]:
    argument = {"index": index, "value": value, "op": comparison}
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": [argument]}


@functools.cache
def _system_calls() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "seccomp_syscalls.json").read_text())
    return content
