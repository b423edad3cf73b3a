"""Devices by CDI: `gpus`, `deploy.resources.reservations.devices`, CDI names in `devices`, and `x-fairway.devices`.

Compose names a driver; the kind of CDI device that is meant by it is in KINDS. What the names may be is in
proto/device_rules.py, for the daemon too.
"""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.device_rules import (
    DEVICES_MAX,
    is_kind,
    is_name,
    parse_property,
    request_problem,
    requests_problem,
    split_name,
)

KINDS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "intel.com/gpu"}
KIND_DEFAULT = KINDS["nvidia"]  # as Docker's
ALL = "all"

Request = objects_pb2.DeviceRequest


def is_cdi_name(text: str) -> bool:
    """Of an entry of `devices`: vendor.com/class=name, rather than a path."""
    return "=" in text and not text.startswith("/")


def read_gpus(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    """`gpus`: all, a number, or a list as of `reservations.devices`."""
    if field.is_list:
        for each in reader.elements(field):
            _reserved(reader, each, resources, gpus=True)
        return
    _add(reader, field, resources, Request(kind=KIND_DEFAULT, count=_count(reader, field)))


def read_reserved(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    for each in reader.elements(field):
        _reserved(reader, each, resources, gpus=False)


def read_named(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    """An entry of `devices` for which `is_cdi_name` holds."""
    text = reader.text(field)
    found = split_name(text)
    if found is None:
        reader.refuse(field, f"{text!r} is neither a path below /dev nor a device of CDI such as nvidia.com/gpu=0")
    else:
        _add(reader, field, resources, Request(kind=found[0], names=[found[1]]))


def read_asked(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    """`x-fairway.devices`."""
    for each in reader.elements(field):
        entries = reader.known_entries(each, frozenset({"kind", "count", "names", "properties"}))
        if "kind" not in entries:
            reader.refuse(each, "has no kind, such as nvidia.com/gpu")
            continue
        request = Request(kind=reader.text(entries["kind"]))
        if "names" in entries:
            request.names.extend(text for _, text in reader.texts(entries["names"], single=True))
            for key in ("count", "properties"):
                if key in entries:
                    reader.refuse(entries[key], "has no effect where devices are named")
        else:
            request.count = _count(reader, entries["count"]) if "count" in entries else 1
            request.properties.extend(_properties(reader, entries["properties"]) if "properties" in entries else ())
        _add(reader, each, resources, request)


def check_devices(reader: Reader, field: Field, resources: objects_pb2.Resources) -> None:
    """What holds of all of them together."""
    problems = [request_problem(each) for each in resources.devices]
    if not any(problems) and (problem := requests_problem(resources.devices)):
        reader.refuse(field, problem)


def _reserved(reader: Reader, field: Field, resources: objects_pb2.Resources, gpus: bool) -> None:
    keys = frozenset({"driver", "count", "capabilities", "device_ids", "options"})
    entries = reader.known_entries(field, keys)
    if "options" in entries:
        reader.known_entries(entries["options"], frozenset())  # none: a CDI specification says how a device is given
    capabilities = [text for _, text in reader.texts(entries["capabilities"])] if "capabilities" in entries else []
    if not gpus and not capabilities:
        reader.refuse(field, "has no capabilities, such as [gpu]")
        return
    names = [text for _, text in reader.texts(entries["device_ids"])] if "device_ids" in entries else []
    driver = reader.text(entries["driver"]) if "driver" in entries else ""
    kind = _kind(reader, entries.get("driver", field), driver, gpus or _means_gpus(capabilities))
    if names and "count" in entries:
        reader.refuse(entries["count"], "goes with device_ids no more than the other way round; keep one of the two")
    elif names:
        for name in names:
            found = split_name(name) or (kind, name)
            if found[0]:
                _add(reader, entries["device_ids"], resources, Request(kind=found[0], names=[found[1]]))
            elif driver == "cdi":
                reader.refuse(entries["device_ids"], f"{name!r} is not a device of CDI such as nvidia.com/gpu=0")
    elif driver == "cdi":
        reader.refuse(field, "has no device_ids, which driver: cdi needs")
    elif kind:
        count = _count(reader, entries["count"]) if "count" in entries else 0
        _add(reader, field, resources, Request(kind=kind, count=count))


def _means_gpus(capabilities: list[str]) -> bool:
    return any(each == "gpu" or each.startswith("nvidia") for each in capabilities)


def _kind(reader: Reader, field: Field, driver: str, gpus: bool) -> str:
    """Empty where there is none: then it was refused, or each device is named with its kind."""
    if driver == "cdi":
        return ""
    if not driver and gpus:
        return KIND_DEFAULT
    if driver in KINDS:
        return KINDS[driver]
    if is_kind(driver):
        return driver
    said = f"the driver {driver!r} is not known" if driver else "says no driver"
    reader.refuse(field, f"{said}; write {', '.join(KINDS)}, cdi, or a kind of CDI device such as vendor.com/class")
    return ""


def _count(reader: Reader, field: Field) -> int:
    """0: all."""
    if reader.text(field).strip() in (ALL, "-1"):
        return 0
    return reader.integer(field, 1, DEVICES_MAX, otherwise=1)


def _properties(reader: Reader, field: Field) -> list[str]:
    found = []
    for each, text in reader.texts(field) if field.is_list else _pairs(reader, field):
        if (parsed := parse_property(text)) is None:
            reader.refuse(each, f'{text!r} is not about a property; write it like "model == A100"')
        else:
            key, equal, value = parsed
            found.append(f"{key} {'==' if equal else '!='} {value}")
    return found


def _pairs(reader: Reader, field: Field) -> list[tuple[Field, str]]:
    return [(below, f"{name} == {reader.text(below)}") for name, below in reader.entries(field).items()]


def _add(reader: Reader, field: Field, resources: objects_pb2.Resources, request: objects_pb2.DeviceRequest) -> None:
    """Names of one kind are one request."""
    known = next((each for each in resources.devices if each.names and each.kind == request.kind), None)
    if request.names and known is not None and request.names[0] in known.names:
        reader.refuse(field, f"{request.kind}={request.names[0]} is asked for twice")
    elif request.names and known is not None and all(map(is_name, request.names)):
        known.names.extend(request.names)
    elif problem := request_problem(request):
        reader.refuse(field, problem)
    else:
        resources.devices.append(request)
