"""What settings of a container may say, for those who write them (cli) and for those who carry them out (runtime).

Each `*_problem` gives a sentence that says what is wrong, or an empty text.
"""

from __future__ import annotations

import json
import re
from typing import Any

# The resources of setrlimit(2), as Docker names them.
ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
LOG_SIZE_BYTES_MIN = 16 << 10  # of one file of a task's log: the longest record
LOG_SIZE_BYTES_MAX = 256 << 20
LOG_FILES_MAX = 100
LOG_AGE_S_MIN, LOG_AGE_S_MAX = 60, 366 * 86_400
LOG_LINES_PER_S_MAX = 10_000_000
LOG_BYTES_PER_S_MIN, LOG_BYTES_PER_S_MAX = 1 << 10, 10 << 30
HOOKS_MAX = 16  # of one kind
INIT_TASKS_MAX = 16
CPU_SHARES_MIN, CPU_SHARES_MAX = 2, 262_144
CPU_PERIOD_US_MIN, CPU_PERIOD_US_MAX = 1_000, 1_000_000
CORES_MAX = 8192
OOM_SCORE_ADJ_MAX = 1000
SECCOMP_BYTES_MAX = 64 << 10  # it is part of every task that has it
UNCONFINED = "unconfined"
RUNC = "runc"  # the runtime of those that name none
SHIM_PREFIX = "io.containerd."

# Settings of a namespace that every container has of its own; others are the whole host's (namespaces(7), ipc(7)).
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
)
_CORES = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")
_RUNTIME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHIM = re.compile(r"io\.containerd\.[a-z0-9-]{1,40}\.v[0-9]{1,3}")
_SYSCTL = re.compile(r"[A-Za-z0-9_.*/:-]+")
_NAMES_OF_HOST = {"kernel.hostname": "hostname", "kernel.domainname": "domainname"}
# What whoever runs the container reads in its annotations.
_TAKEN_ANNOTATIONS = ("io.containerd.", "org.systemd.", "run.oci.")
_ANNOTATION = re.compile(r"[!-~]{1,253}")
_SECCOMP_ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRAP", "TRACE"]
)
_SECCOMP_KEYS = frozenset({"defaultAction", "defaultErrnoRet", "archMap", "architectures", "syscalls", "flags"})


def sysctl_problem(name: str) -> str:
    if name in _NAMES_OF_HOST:
        return f"say it by {_NAMES_OF_HOST[name]}"
    if not _SYSCTL.fullmatch(name) or ".." in name or "/" in name:
        return "it is not the name of a kernel setting such as net.core.somaxconn"
    if name in _IPC_SYSCTLS or name.startswith(("fs.mqueue.", "net.")):
        return ""
    return "it is the whole host's: only net.*, fs.mqueue.* and the kernel's of System V IPC are a container's own"


def ipc_sysctl(name: str) -> bool:
    """Whether it is a setting of the IPC namespace (ipc_namespaces(7))."""
    return name in _IPC_SYSCTLS or name.startswith("fs.mqueue.")


def runtime_problem(name: str) -> str:
    if _RUNTIME.fullmatch(name) or _SHIM.fullmatch(name):
        return ""
    return f"{name!r} is neither a runtime's program, as crun, nor a shim of containerd, as io.containerd.kata.v2"


def annotation_problem(name: str) -> str:
    if not _ANNOTATION.fullmatch(name):
        return "a name is printable ASCII without spaces, at most 253 characters"
    taken = next((prefix for prefix in _TAKEN_ANNOTATIONS if name.startswith(prefix)), "")
    return f"names that begin with {taken} are for the container runtime itself" if taken else ""


def seccomp_problem(text: str) -> str:
    """Of a profile as Docker writes it (https://docs.docker.com/engine/security/seccomp/)."""
    if text in ("", UNCONFINED):
        return ""
    if len(text.encode()) > SECCOMP_BYTES_MAX:
        return f"a seccomp profile has at most {SECCOMP_BYTES_MAX} bytes"
    try:
        profile = json.loads(text)
    except ValueError as error:
        return f"the seccomp profile is not JSON: {error}"
    except RecursionError:
        return "the seccomp profile is nested too deeply"
    if not isinstance(profile, dict):
        return "the seccomp profile is not a JSON object"
    if unknown := sorted(profile.keys() - _SECCOMP_KEYS):
        return f"the seccomp profile has {unknown[0]!r}, which is not supported"
    if profile.get("defaultAction") not in _SECCOMP_ACTIONS:
        return "the seccomp profile has no defaultAction such as SCMP_ACT_ERRNO"
    if not isinstance(profile.get("archMap", []), list) or not isinstance(profile.get("syscalls", []), list):
        return "archMap and syscalls of a seccomp profile are lists"
    return next((problem for rule in profile.get("syscalls") or [] if (problem := _rule_problem(rule))), "")


def _rule_problem(rule: Any) -> str:
    if not isinstance(rule, dict) or rule.get("action") not in _SECCOMP_ACTIONS:
        return "each of a seccomp profile's syscalls has an action such as SCMP_ACT_ALLOW"
    names = rule.get("names", [rule["name"]] if "name" in rule else None)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return "each of a seccomp profile's syscalls has names"
    for key in ("includes", "excludes"):
        if not isinstance(rule.get(key) or {}, dict):
            return f"{key} of a seccomp profile's syscalls is an object"
    return "" if isinstance(rule.get("args") or [], list) else "args of a seccomp profile's syscalls is a list"


def ulimit_problem(name: str, soft: int, hard: int) -> str:
    """-1 stands for no limit."""
    if name not in ULIMITS:
        return f"{name!r} is not one of {', '.join(sorted(ULIMITS))}"
    if soft < -1 or hard < -1:
        return "a limit is at least 0; -1 is none"
    if hard != -1 and (soft == -1 or soft > hard):
        return f"the soft limit {soft} is above the hard one, {hard}"
    return ""


def device_problem(source: str, target: str, permissions: str) -> str:
    for path in (source, target):
        if not path.startswith("/dev/") or ".." in path.split("/") or path.rstrip("/") == "/dev":
            return f"{path!r} is not a path below /dev"
    if not permissions or set(permissions) - set("rwm") or len(set(permissions)) != len(permissions):
        return f"{permissions!r} is not made of r, w and m"
    return ""


def cores_problem(text: str) -> str:
    """Why a list of cores is none; empty where it is one: "0-3,6"."""
    for part in text.split(","):
        if _CORES.fullmatch(part) is None:
            return f'{text!r} is not a list of cores; write it like "0-3,6"'
        first, _, last = part.partition("-")
        if int(last or first) < int(first) or int(last or first) >= CORES_MAX:
            return f"{text!r} has the cores {part}, which cannot be"
    return ""


def cores_of(text: str) -> frozenset[int]:
    """The cores of a list that is one."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
