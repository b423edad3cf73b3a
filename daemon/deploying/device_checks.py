"""What must hold of the devices that a service asks for, and what differs between two versions, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proto import objects_pb2 as objects
from proto.device_rules import request_words, requests_problem


def says_devices(spec: objects.ServiceSpec) -> bool:
    """A leader that does not know it would place tasks where there are none, and a host start them without."""
    return bool(spec.resources.devices)


def device_problems(resources: objects.Resources) -> Iterator[str]:
    if problem := requests_problem(resources.devices):
        yield problem


def device_changes(before: objects.Resources, after: objects.Resources) -> list[str]:
    """Reasons why tasks are replaced."""
    old, new = ({request_words(each) for each in resources.devices} for resources in (before, after))
    removed = [f"device {words} removed" for words in sorted(old - new)]
    reasons = removed + [f"device {words} added" for words in sorted(new - old)]
    return reasons or (["devices changed"] if before.devices != after.devices else [])
