"""Keys of a service that set one thing of its containers: limits, kernel settings, devices, security.

What they may say is in proto/container_rules.py, for the daemon too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from cli.compose import dotenv
from cli.compose.devices import is_cdi_name
from cli.compose.logging import read_logging
from cli.compose.named_files import path_of, read_named, read_values
from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.container_rules import (
    OOM_SCORE_ADJ_MAX,
    RUNC,
    SECCOMP_BYTES_MAX,
    SHIM_PREFIX,
    UNCONFINED,
    annotation_problem,
    device_problem,
    runtime_problem,
    seccomp_problem,
    sysctl_problem,
    ulimit_problem,
)

SHM_BYTES_MIN = 4096
_LABEL_FILE_BYTES_MAX = 1 << 20
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_APPARMOR = re.compile(r"[!-~]{1,255}")
_RUNC_SHIM = f"{SHIM_PREFIX}runc.v2"
_OWN_IPC = ("private", "shareable", "")  # whose it is, others may share it
_OF_SERVICE = "service:"

Container = objects_pb2.ContainerSpec


def _ulimits(reader: Reader, field: Field, container: Container) -> None:
    for name, below in reader.entries(field).items():
        if below.is_mapping:
            entries = reader.known_entries(below, frozenset({"soft", "hard"}))
            if entries.keys() != {"soft", "hard"}:
                reader.refuse(below, "needs soft and hard, or one number for both")
                continue
            soft, hard = (_limit(reader, entries[key]) for key in ("soft", "hard"))
        else:
            soft = hard = _limit(reader, below)
        if problem := ulimit_problem(name, soft, hard):
            reader.refuse(below, problem)
        container.ulimits.append(objects_pb2.Ulimit(name=name, soft=soft, hard=hard))


def _limit(reader: Reader, field: Field) -> int:
    return reader.integer(field, -1, (1 << 63) - 1)


def _sysctls(reader: Reader, field: Field, container: Container) -> None:
    for below, name, value in reader.pairs(field):
        if problem := sysctl_problem(name):
            reader.refuse(below, f"{name}: {problem}")
        elif not value:
            reader.refuse(below, "has no value")
        else:
            container.sysctls[name] = value


def _shm_size(reader: Reader, field: Field, container: Container) -> None:
    container.shm_size_bytes = reader.size_bytes(field, low=SHM_BYTES_MIN)


def _group_add(reader: Reader, field: Field, container: Container) -> None:
    for each, text in reader.texts(field):
        if text and not _GROUP.fullmatch(text):
            reader.refuse(each, f"{text!r} is neither the name of a group nor a number")
        container.group_add.append(text)


def _annotations(reader: Reader, field: Field, container: Container) -> None:
    for below, name, value in reader.pairs(field):
        if problem := annotation_problem(name):
            reader.refuse(below, f"{name!r}: {problem}")
        container.annotations[name] = value or ""


def _oom_score_adj(reader: Reader, field: Field, container: Container) -> None:
    text = reader.text(field).strip()
    if text.startswith("-"):
        reader.refuse(field, "is negative: the kernel would end other tasks, or the host's own programs, in its place")
    else:
        container.oom_score_adj = reader.integer(field, 0, OOM_SCORE_ADJ_MAX)


def _domainname(reader: Reader, field: Field, container: Container) -> None:
    text = reader.text(field)
    if text and not _DOMAIN.fullmatch(text):
        reader.refuse(field, f"{text!r} is not a domain name (letters, digits, - and ., at most 63 characters)")
    container.domainname = text


def _devices(reader: Reader, field: Field, container: Container) -> None:
    for each in reader.elements(field):
        if each.is_text and is_cdi_name(reader.text(each)):
            continue  # of the service's resources
        device = _device(reader, each)
        if not device.source:
            continue
        if problem := device_problem(device.source, device.target, device.permissions):
            reader.refuse(each, problem)
        elif any(known.target == device.target for known in container.devices):
            reader.refuse(each, f"{device.target} is a second device at one path")
        else:
            container.devices.append(device)


def _device(reader: Reader, field: Field) -> objects_pb2.DeviceMapping:
    device = objects_pb2.DeviceMapping(permissions="rwm")
    if field.is_mapping:
        entries = reader.known_entries(field, frozenset({"source", "target", "permissions"}))
        if "source" not in entries:
            reader.refuse(field, "has no source, the path on the host")
            return device
        device.source = device.target = reader.text(entries["source"])
        if "target" in entries:
            device.target = reader.text(entries["target"])
        if "permissions" in entries:
            device.permissions = reader.text(entries["permissions"])
        return device
    source, *rest = reader.text(field).split(":")
    device.source = device.target = source
    if len(rest) == 1 and not rest[0].startswith("/"):  # Docker takes HOST:PERMISSIONS as well
        device.permissions = rest[0]
    elif rest:
        device.target = rest[0]
        device.permissions = ":".join(rest[1:]) if len(rest) > 1 else "rwm"
    return device


def _security_opt(reader: Reader, field: Field, container: Container) -> None:
    for each, text in reader.texts(field):
        separator = min((text.index(sign) for sign in "=:" if sign in text), default=len(text))
        name, value = text[:separator], text[separator + 1 :]
        if name == "no-new-privileges" and value in ("", "true", "false"):
            container.no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            container.seccomp_profile = _seccomp(reader, each, value)
        elif name == "apparmor" and _APPARMOR.fullmatch(value):
            # Nothing confines a container by AppArmor but a profile that is named here.
            container.apparmor_profile = "" if value == UNCONFINED else value
        else:
            reader.refuse(
                each,
                f"{text!r} is not supported by Fairway (no-new-privileges, seccomp=FILE or unconfined, "
                "and apparmor=PROFILE are)",
            )


def _seccomp(reader: Reader, field: Field, value: str) -> str:
    """The profile that the file holds, without its spaces: it travels with every task."""
    if value == UNCONFINED:
        return value
    text = read_named(reader, field, value, 4 * SECCOMP_BYTES_MAX)
    if text is None:
        return ""
    try:
        text = json.dumps(json.loads(text), separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        reader.refuse(field, f"{path_of(field, value)} is not JSON: {error}")
        return ""
    if problem := seccomp_problem(text):
        reader.refuse(field, f"{path_of(field, value)}: {problem}")
    return text


def _ipc(reader: Reader, field: Field, container: Container) -> None:
    text = reader.text(field)
    if text.startswith(_OF_SERVICE):
        container.sharing.ipc = _service_of(reader, field, text)
    elif text not in _OWN_IPC:
        reader.unsupported(field, 'tasks share no memory with their host; "service:NAME" is that of another service')


def _pid(reader: Reader, field: Field, container: Container) -> None:
    text = reader.text(field)
    if text.startswith(_OF_SERVICE):
        container.sharing.processes = _service_of(reader, field, text)
    elif text not in ("private", ""):
        reader.unsupported(field, 'tasks see no processes of their host; "service:NAME" are those of another service')


def _service_of(reader: Reader, field: Field, text: str) -> str:
    name = text.removeprefix(_OF_SERVICE)
    if not name:
        reader.refuse(field, f"{text!r} names no service")
    return name


def _runtime(reader: Reader, field: Field, container: Container) -> None:
    name = reader.text(field)
    if name in ("", RUNC, _RUNC_SHIM):
        return
    if problem := runtime_problem(name):
        reader.refuse(field, problem)
    container.isolation.runtime = name


def _userns_mode(reader: Reader, field: Field, container: Container) -> None:
    mode = reader.text(field)
    if mode == "private":
        container.isolation.user_namespace = True
    elif mode not in ("", "host"):
        reader.refuse(field, f"{mode!r} is neither private, for users that are nobody on the host, nor host")


def _cgroup(reader: Reader, field: Field, container: Container) -> None:
    if reader.text(field) != "private":
        reader.unsupported(field, "every task has a control group of its own")


def _label_file(reader: Reader, field: Field, container: Container) -> None:
    for each, name in reader.texts(field, single=True):
        values = read_values(reader, each, name, _LABEL_FILE_BYTES_MAX, lambda text: dotenv.parse(text, {}))
        container.labels.update(values)


# `label_file` stands before `labels`, which win.
KEYS: dict[str, Callable[[Reader, Field, Container], None]] = {
    "ulimits": _ulimits,
    "sysctls": _sysctls,
    "shm_size": _shm_size,
    "group_add": _group_add,
    "annotations": _annotations,
    "oom_score_adj": _oom_score_adj,
    "domainname": _domainname,
    "devices": _devices,
    "security_opt": _security_opt,
    "ipc": _ipc,
    "pid": _pid,
    "runtime": _runtime,
    "userns_mode": _userns_mode,
    "cgroup": _cgroup,
    "logging": read_logging,
    "label_file": _label_file,
}
