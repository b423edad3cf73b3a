"""Devices of a host and of a service, as `node show` and `show` print them."""

from __future__ import annotations

from collections.abc import Iterable

from proto import objects_pb2
from proto.device_rules import request_words

HEADINGS = ("DEVICE", "SHARED", "PROPERTIES", "HELD BY")


def rows(node: objects_pb2.Node, tasks: Iterable[objects_pb2.Task]) -> list[tuple[str, str, str, str]]:
    """One a device of the host; those that are one thing under several names are held together. Then what tasks hold
    and the host does not have any more."""
    holders: dict[str, list[str]] = {}
    gone: dict[str, list[str]] = {}
    there = {(device.kind, device.name) for device in node.description.devices}
    for task in tasks:
        if task.node_id == node.meta.id and task.address:  # else nothing of it is left
            name = f"{task.app}/{task.meta.name}"
            for held in task.devices:
                for unit in held.units:
                    holders.setdefault(unit, []).append(name)
                if (held.kind, held.name) not in there:
                    gone.setdefault(f"{held.kind}={held.name}", []).append(name)
    listed = [
        (
            f"{device.kind}={device.name}",
            _shared(device),
            ", ".join(f"{name}={value}" for name, value in sorted(device.properties.items())),
            ", ".join(dict.fromkeys(name for unit in device.units for name in holders.get(unit, ()))),
        )
        for device in node.description.devices
    ]
    return listed + [(name, "gone", "", ", ".join(by)) for name, by in sorted(gone.items())]


def asked_words(resources: objects_pb2.Resources) -> str:
    """ "2 nvidia.com/gpu, example.com/fuse=fuse" """
    return ", ".join(request_words(each) for each in resources.devices)


def _shared(device: objects_pb2.HostDevice) -> str:
    if not device.shared:
        return "no"
    return f"by {device.tasks_max}" if device.tasks_max else "yes"
