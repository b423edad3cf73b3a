"""Makes the edits of CDI devices in a container's OCI specification.

As https://github.com/cncf-tags/container-device-interface (pkg/cdi) does: variables and device files of the same name
are replaced, mounts of the same place too, hooks run after those that are there.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.cdi_model import CdiEdits, CdiHook, CdiMount, CdiNode
from runtime.container_settings import device_nodes, device_rules
from runtime.errors import InvalidRequest
from runtime.model import Device

_BINDS = frozenset({"bind", "rbind"})
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
MODE_DEFAULT = 0o666  # runc's


def filled(edits: CdiEdits) -> CdiEdits:
    """With what the host's files say of device nodes. Raises InvalidRequest where one is not there. Does I/O."""
    return dataclasses.replace(edits, nodes=tuple(_filled(node) for node in edits.nodes))


def _filled(node: CdiNode) -> CdiNode:
    if node.complete:
        return node
    try:
        info = Path(node.host_path).stat()
    except OSError as error:
        raise InvalidRequest(f"device file {node.host_path} is not there any more: {error.strerror}") from error
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None or node.kind not in (None, kind):
        raise InvalidRequest(f"{node.host_path} is not the device file that its CDI specification says it is")
    return dataclasses.replace(node, kind=kind, major=os.major(info.st_rdev), minor=os.minor(info.st_rdev))


def apply(oci: dict[str, Any], edits: CdiEdits) -> None:
    """Changes `oci` (runtime/oci_spec.py) in place. `edits`: as `filled` gives them. Pure."""
    process, linux = oci["process"], oci["linux"]
    process["env"] = _environment(process["env"], edits.environment)
    user = process["user"]
    devices = tuple(_device(node, user["uid"], user["gid"]) for node in edits.nodes)
    if devices:
        last = {device.target: device for device in devices}  # of a specification and a device: the same file twice
        others = [each for each in linux.get("devices", []) if each["path"] not in last]
        linux["devices"] = others + device_nodes(tuple(last.values()))
        allowed = tuple(device for device in last.values() if device.permissions and device.kind != "p")
        linux["resources"]["devices"] += device_rules(allowed)
    if edits.mounts:
        oci["mounts"] = _mounts(oci["mounts"], edits.mounts)
    for hook in edits.hooks:
        oci.setdefault("hooks", {}).setdefault(hook.name, []).append(_hook(hook))
    user["additionalGids"] += [group for group in edits.groups if group not in user["additionalGids"]]


def _environment(lines: Iterable[str], added: Iterable[str]) -> list[str]:
    merged = dict(line.split("=", 1) for line in lines)
    merged |= dict(line.split("=", 1) for line in added)
    return [f"{name}={value}" for name, value in merged.items()]


def _device(node: CdiNode, uid: int, gid: int) -> Device:
    return Device(
        target=node.path,
        kind=node.kind or "c",
        major=node.major or 0,
        minor=node.minor or 0,
        permissions=node.permissions,
        mode=stat.S_IMODE(node.mode) if node.mode is not None else MODE_DEFAULT,
        uid=uid if node.uid is None else node.uid,
        gid=gid if node.gid is None else node.gid,
    )


def _mounts(before: Iterable[dict[str, Any]], added: Iterable[CdiMount]) -> list[dict[str, Any]]:
    """Outer places before those in them."""
    fresh = {mount.container_path: _mount(mount) for mount in added}
    kept = [each for each in before if each["destination"] not in fresh]
    return sorted([*kept, *fresh.values()], key=lambda each: os.path.normpath(each["destination"]).count("/"))


def _mount(mount: CdiMount) -> dict[str, Any]:
    options = list(mount.options)
    if mount.kind in ("", "bind") and not _BINDS.intersection(options):
        options.append("rbind")
    return {
        "destination": mount.container_path,
        "source": mount.host_path,
        "type": mount.kind or "bind",
        "options": options,
    }


def _hook(hook: CdiHook) -> dict[str, Any]:
    found: dict[str, Any] = {"path": hook.path}
    if hook.arguments:
        found["args"] = list(hook.arguments)
    if hook.environment:
        found["env"] = list(hook.environment)
    if hook.timeout_s:
        found["timeout"] = hook.timeout_s
    return found
