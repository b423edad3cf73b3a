"""Ports on hosts: which two clash, and which a task takes on its own host. Pure."""

from __future__ import annotations

from proto import objects_pb2 as objects

HostPort = tuple[str, int, str]  # protocol, number, address ("": every address of the host)


def clash(one: HostPort, other: HostPort) -> bool:
    """Whether both are the same port at an address that both mean."""
    return one[:2] == other[:2] and (one[2] == other[2] or not one[2] or not other[2])


def host_port(port: objects.PortSpec) -> HostPort:
    return (port.protocol, port.published, port.host_ip)


def host_ports(spec: objects.ServiceSpec) -> tuple[HostPort, ...]:
    """What each task of the service publishes on its own host alone (mode host)."""
    return tuple(host_port(port) for port in spec.ports if port.published and port.mode == objects.PortSpec.MODE_HOST)


def port_text(port: HostPort) -> str:
    """ "8080/tcp", "8080/tcp at 192.0.2.1" """
    protocol, number, address = port
    return f"{number}/{protocol}" + (f" at {address}" if address else "")
