"""What the services of a file say of each other: networks, volumes and dependencies must exist."""

from __future__ import annotations

from collections.abc import Mapping

from cli.compose.ports import clash
from cli.compose.reader import Field, Reader
from cli.compose.service import ServiceRead
from proto import objects_pb2


def check_networks(reader: Reader, service: ServiceRead, networks: Mapping[str, Field]) -> None:
    for name, field in service.network_fields.items():
        if name != "default" and name not in networks:
            reader.refuse(field, f"names the network {name!r}, which the file does not define under networks")


def check_volumes(reader: Reader, service: ServiceRead, volumes: Mapping[str, Field]) -> None:
    for mount in service.spec.container.mounts:
        named = mount.kind == objects_pb2.Mount.KIND_VOLUME and mount.source
        if named and mount.source not in volumes:
            assert service.volume_field is not None
            reader.refuse(
                service.volume_field,
                f"names the volume {mount.source!r}, which the file does not define under volumes",
            )


def check_ports(reader: Reader, services: Mapping[str, ServiceRead]) -> None:
    """A published port belongs to one service of the file; other apps' ports are the cluster's to check.

    Ports of host mode may meet: the scheduler keeps their tasks on different hosts."""
    holders: dict[tuple[str, int], list[tuple[str, objects_pb2.PortSpec]]] = {}
    for name, service in services.items():
        for port in service.spec.ports:
            if not port.published:
                continue
            known = holders.setdefault((port.protocol, port.published), [])
            for other, held in known:
                both_here = port.mode == held.mode == objects_pb2.PortSpec.MODE_HOST
                if other != name and not both_here and clash(port, held):
                    reader.refuse(
                        service.field,
                        f"publishes {port.published}/{port.protocol}, as services.{other} does",
                    )
                    break
            known.append((name, port))


def check_dependencies(reader: Reader, services: Mapping[str, ServiceRead]) -> None:
    """Every dependency exists, can meet its condition, and none leads back to where it began."""
    for service in services.values():
        for dependency in service.spec.depends_on:
            field = service.dependency_fields[dependency.service]
            other = services.get(dependency.service)
            if other is None:
                reader.refuse(field, f"names the service {dependency.service!r}, which the file does not define")
            elif dependency.condition == objects_pb2.Dependency.CONDITION_COMPLETED:
                _check_completes(reader, field, other)
    _check_cycles(reader, services)


def _check_completes(reader: Reader, field: Field, other: ServiceRead) -> None:
    """What others wait for must be able to end. Where the file says nothing it runs once, as with Compose."""
    policy = objects_pb2.RestartPolicy
    if other.spec.restart.condition != policy.CONDITION_ANY:
        return
    if not other.restart_said:
        other.spec.restart.condition = policy.CONDITION_NONE
        return
    reader.refuse(
        field,
        f"waits for {other.name!r} to complete, but that is restarted whenever it ends; "
        'give it restart: "no" or on-failure',
    )


def _check_cycles(reader: Reader, services: Mapping[str, ServiceRead]) -> None:
    finished: set[str] = set()
    for start in services:
        trail: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                trail.pop()
                finished.add(name)
                continue
            if name in trail:
                loop = [*trail[trail.index(name) :], name]
                service = services[loop[-2]]
                field = {**service.sharing_fields, **service.dependency_fields}[name]
                reader.refuse(field, f"depends on itself: {' -> '.join(loop)}")
                continue
            if name in finished or name not in services:
                continue
            trail.append(name)
            stack.append((name, True))
            stack.extend((each.service, False) for each in services[name].spec.depends_on)
            stack.extend((each, False) for each in services[name].sharing_fields)
