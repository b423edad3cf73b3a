"""Devices of the host for a container: which ones its configuration allows, and what the kernel knows them by."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from proto import objects_pb2
from proto.container_rules import device_problem
from runtime.errors import InvalidRequest
from runtime.model import Device

CONFIGURATION_KEY = "resources.allowed_devices"
DEVICES_MAX = 256  # of one container


def resolve(mappings: Iterable[objects_pb2.DeviceMapping], allowed: Sequence[Path]) -> tuple[Device, ...]:
    """The devices that are meant; a folder stands for all devices in it. `allowed`: devices and folders that tasks
    of this host may have. Raises InvalidRequest where one is not allowed or is none. Does I/O."""
    found: dict[str, Device] = {}
    for mapping in mappings:
        permissions = mapping.permissions or "rwm"
        if problem := device_problem(mapping.source, mapping.target, permissions):
            raise InvalidRequest(f"device {mapping.source}: {problem}")
        resolved = Path(os.path.realpath(mapping.source))
        _check_allowed(mapping.source, resolved, allowed)
        for path, target in _nodes(mapping, resolved):
            _check_allowed(mapping.source, path, allowed)
            device = _device(path, target, permissions)
            if device is not None:
                found[target] = device
            elif path == resolved:
                raise InvalidRequest(f"device {mapping.source}: there is no such device on this host")
        if len(found) > DEVICES_MAX:
            raise InvalidRequest(f"device {mapping.source}: more than {DEVICES_MAX} devices for one task")
    return tuple(found.values())


def _check_allowed(source: str, resolved: Path, allowed: Sequence[Path]) -> None:
    prefixes = [Path(os.path.realpath(prefix)) for prefix in allowed]
    if any(resolved == prefix or prefix in resolved.parents for prefix in prefixes):
        return
    shown = ", ".join(str(prefix) for prefix in allowed) or "nothing"
    raise InvalidRequest(
        f"device {source}: this host allows {shown}; to allow it, add the path to {CONFIGURATION_KEY} in the "
        "host's fairwayd.toml"
    )


def _nodes(mapping: objects_pb2.DeviceMapping, resolved: Path) -> list[tuple[Path, str]]:
    """(path on the host, path in the container) of the device, or of everything below the folder."""
    if not resolved.is_dir():
        return [(resolved, mapping.target)]
    target = mapping.target.rstrip("/")
    below = [Path(folder) / name for folder, _, names in os.walk(resolved) for name in sorted(names)]
    return [
        (path, f"{target}/{path.relative_to(resolved)}") for path in below[: DEVICES_MAX + 1] if not path.is_symlink()
    ]


def _device(path: Path, target: str, permissions: str) -> Device | None:
    """None where it is no device."""
    try:
        info = path.stat(follow_symlinks=False)
    except OSError:
        return None
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        return None
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
    number = info.st_rdev
    mode = stat.S_IMODE(info.st_mode)
    return Device(target, kind, os.major(number), os.minor(number), permissions, mode, info.st_uid, info.st_gid)
