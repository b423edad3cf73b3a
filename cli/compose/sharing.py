"""`pid: service:NAME` and `ipc: service:NAME`: a service whose tasks are beside those of another one of the file."""

from __future__ import annotations

from collections.abc import Mapping

from cli.compose.reader import Field, Reader
from cli.compose.service import ServiceRead
from proto import objects_pb2

_JOBS = (objects_pb2.SERVICE_KIND_JOB, objects_pb2.SERVICE_KIND_GLOBAL_JOB)


def check_sharing(
    reader: Reader, service: ServiceRead, services: Mapping[str, ServiceRead], all_of_file: Mapping[str, ServiceRead]
) -> None:
    """`services` are those that are there with the profiles that are asked for."""
    if len(service.sharing_fields) > 1:
        names = " and ".join(service.sharing_fields)
        reader.refuse(
            list(service.sharing_fields.values())[-1], f"pid and ipc name {names}: they must name one service"
        )
        return
    for name, field in service.sharing_fields.items():
        if name == service.name:
            continue  # which is the shortest of circles, and refused as one
        if name in services:
            _check_beside(reader, field, service, services[name])
        elif name in all_of_file:
            profiles = ", ".join(sorted(all_of_file[name].profiles))
            reader.refuse(field, f"names the service {name!r}, which is there with --profile {profiles} only")
        else:
            reader.refuse(field, f"names the service {name!r}, which the file does not define")


def _check_beside(reader: Reader, field: Field, service: ServiceRead, other: ServiceRead) -> None:
    """The same holds in daemon/deploying/sharing_checks.py, which has the last word."""
    own, others = service.spec, other.spec
    if other.sharing_fields:
        further = next(iter(other.sharing_fields))
        reader.refuse(field, f"names {other.name!r}, which shares with {further!r} itself: name that one")
    if own.kind in _JOBS or others.kind in _JOBS:
        reader.refuse(field, "is not for jobs: their tasks are beside no others")
    elif own.kind != others.kind:
        reader.refuse(field, f"names {other.name!r}: one of the two has a task on each host, and the other has not")
    if own.container.isolation != others.container.isolation:
        reader.refuse(field, f"names {other.name!r}, whose runtime or userns_mode is another one")
