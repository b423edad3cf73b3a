"""A host's CDI devices as the cluster sees them: what each is made of, and whether tasks share it. Pure.

CDI gives one thing several names ("0", "GPU-8f6e...", and "all" for every one of them), and does not say so. Here a
*unit* is what one task has for itself. Devices with the same device files are one unit under several names. A device
whose files include all of another's of its kind contains that one's units. Files that two devices share in part
(control files, as of NVIDIA's MIG) say nothing. A device without device files of its own is a unit by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

from proto import devices_pb2
from proto.device_rules import SHARED_ANNOTATION
from runtime.cdi_model import CdiDevice

UNIT_CHARACTERS_MAX = 128
PROPERTIES_MAX = 16  # of a device, that the cluster is told
PROPERTY_CHARACTERS_MAX = 256
TOLD_BYTES_MAX = 256 << 10  # of all devices together: they are part of a node, and it of many messages
TASKS_MAX = 10_000


def host_devices(
    devices: Iterable[CdiDevice], shared: Collection[str] = ()
) -> tuple[list[devices_pb2.HostDevice], list[str]]:
    """The devices by kind and name, and what is wrong with what they say, in words. `shared`: kinds and full names that
    this host's configuration lets tasks share."""
    found: list[devices_pb2.HostDevice] = []
    problems: list[str] = []
    told_bytes = 0
    by_kind: dict[str, list[CdiDevice]] = {}
    for device in devices:
        by_kind.setdefault(device.kind, []).append(device)
    for kind, of_kind in sorted(by_kind.items()):
        units = _units(of_kind)
        for device in of_kind:
            told = devices_pb2.HostDevice(kind=kind, name=device.name, units=units[device.name])
            said = device.annotations.get(SHARED_ANNOTATION)
            if said is not None and not _share(told, said):
                problems.append(
                    f"{device.full_name} has the annotation {SHARED_ANNOTATION}: {said[:60]!r}, which is neither true, "
                    f"false nor a number of tasks from 1 to {TASKS_MAX}: it is not shared"
                )
            if said is None and (kind in shared or device.full_name in shared):
                told.shared = True
            told.properties.update(_properties(device.annotations))
            told_bytes += told.ByteSize()
            if told_bytes > TOLD_BYTES_MAX:
                problems.append(f"{device.full_name} and what comes after it is left out: too much is said of devices")
                return found, problems
            found.append(told)
    return found, problems


def _share(told: devices_pb2.HostDevice, said: str) -> bool:
    """False where the annotation cannot be read."""
    if said.isascii() and said.isdigit() and 1 <= int(said) <= TASKS_MAX:
        told.tasks_max = int(said)
        told.shared = told.tasks_max > 1
        return True
    told.shared = said == "true"
    return said in ("true", "false")


def _properties(annotations: Mapping[str, str]) -> dict[str, str]:
    names = sorted(name for name in annotations if name != SHARED_ANNOTATION)
    fit = [name for name in names if max(len(name), len(annotations[name])) <= PROPERTY_CHARACTERS_MAX]
    return {name: annotations[name] for name in fit[:PROPERTIES_MAX]}


def _units(devices: Iterable[CdiDevice]) -> dict[str, list[str]]:
    """By name, of devices of one kind."""
    files = {device.name: frozenset(node.host_path for node in device.edits.nodes) for device in devices}
    sets = sorted({each for each in files.values() if each}, key=len)
    least: list[frozenset[str]] = []  # that include no other
    for each in sets:
        if not any(smaller < each for smaller in least):
            least.append(each)
    kind = next((device.kind for device in devices), "")
    return {
        name: sorted(_unit_name(each) for each in least if each <= own) if own else [f"{kind}={name}"]
        for name, own in files.items()
    }


def _unit_name(files: Collection[str]) -> str:
    name = "+".join(sorted(files))
    if len(name) <= UNIT_CHARACTERS_MAX:
        return name
    return f"{name[: UNIT_CHARACTERS_MAX - 17]}#{hashlib.sha256(name.encode()).hexdigest()[:16]}"
