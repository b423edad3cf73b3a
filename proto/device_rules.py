"""How devices by CDI are named and asked for, for those who write it (cli) and for those who carry it out (daemon)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from proto import devices_pb2

REQUESTS_MAX = 16  # of one task
DEVICES_MAX = 64  # of one task, all requests together
SHARED_ANNOTATION = "fairway.shared"  # of a CDI device or specification: "true", or how many tasks at a time

# As the CDI library checks them: https://github.com/cncf-tags/container-device-interface, pkg/parser.
_KIND = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_CHARACTERS_MAX = 253
_PROPERTY = re.compile(r"\s*([!-~]{1,253}?)\s*(==|!=)\s*(\S(?:.{0,255}\S)?)\s*")


def is_kind(text: str) -> bool:
    """ "vendor.com/class" """
    return len(text) <= _CHARACTERS_MAX and _KIND.fullmatch(text) is not None


def is_name(text: str) -> bool:
    return len(text) <= _CHARACTERS_MAX and _NAME.fullmatch(text) is not None


def split_name(text: str) -> tuple[str, str] | None:
    """ "vendor.com/class=name" -> kind and name; None where it is none such."""
    kind, equals, name = text.partition("=")
    return (kind, name) if equals and is_kind(kind) and is_name(name) else None


def parse_property(text: str) -> tuple[str, bool, str] | None:
    """ "model == A100" -> ("model", True, "A100"); None where it cannot be read."""
    match = _PROPERTY.fullmatch(text)
    return None if match is None else (match[1], match[2] == "==", match[3])


def request_problem(request: devices_pb2.DeviceRequest) -> str:
    """What is wrong with one request, in words; empty where nothing is."""
    if not is_kind(request.kind):
        return f"{request.kind!r} is not a kind of device; write it like nvidia.com/gpu"
    if request.names and (request.count or request.properties):
        return f"{request.kind}: devices are asked for by name, or by count and properties"
    for name in request.names:
        if not is_name(name):
            return f"{name!r} is not the name of a device; write it like 0 or GPU-1234"
    if len(set(request.names)) != len(request.names):
        return f"{request.kind}: a device is asked for twice"
    for text in request.properties:
        if parse_property(text) is None:
            return f"{text!r} is not about a property; write it like model == A100"
    return ""


def requests_problem(requests: Iterable[devices_pb2.DeviceRequest]) -> str:
    """The same of all of a task."""
    found = list(requests)
    if len(found) > REQUESTS_MAX:
        return f"{len(found)} requests for devices; at most {REQUESTS_MAX} are possible"
    if sum(max(each.count, len(each.names)) for each in found) > DEVICES_MAX:
        return f"more than {DEVICES_MAX} devices for one task"
    return next((problem for each in found if (problem := request_problem(each))), "")


def request_words(request: devices_pb2.DeviceRequest) -> str:
    """ "2 nvidia.com/gpu with model == A100", "all nvidia.com/gpu", "nvidia.com/gpu=0" """
    if request.names:
        return ", ".join(f"{request.kind}={name}" for name in request.names)
    words = f"{request.count or 'all'} {request.kind}"
    return words + (f" with {' and '.join(request.properties)}" if request.properties else "")
