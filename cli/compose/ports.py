"""`ports` and `expose` of a service, in the short and the long form."""

from __future__ import annotations

import re

from cli.compose.reader import Field, Reader
from proto import objects_pb2

_LONG_KEYS = frozenset({"target", "published", "protocol", "mode"})
_HINTS = {
    "host_ip": "a published port is open on every address of every host; leave host_ip out",
    "name": "it has no effect here; leave it out",
    "app_protocol": "there is no HTTP routing yet",
}
_SHORT = re.compile(r"(?:(?P<published>[^:]*):)?(?P<target>[^:]+)")
_PORTS_MAX = 1000  # of one service


def read_ports(reader: Reader, field: Field, container: objects_pb2.ServiceSpec) -> None:
    """Appends to `container.ports`; refuses what is published twice in the service."""
    for each in reader.elements(field):
        found = _long(reader, each) if each.is_mapping else _short(reader, each)
        for port in found:
            _add(reader, each, port, container)


def read_expose(reader: Reader, field: Field, container: objects_pb2.ServiceSpec) -> None:
    """Ports that are balanced on the service's VIP and not published."""
    for each, text in reader.texts(field):
        try:
            for port in _targets(text):
                known = {(known.protocol, known.target) for known in container.ports}
                if (port.protocol, port.target) not in known:
                    _add(reader, each, port, container)
        except ValueError as error:
            reader.refuse(each, str(error))


def _add(reader: Reader, field: Field, port: objects_pb2.PortSpec, spec: objects_pb2.ServiceSpec) -> None:
    if len(spec.ports) >= _PORTS_MAX:
        if len(spec.ports) == _PORTS_MAX:
            reader.refuse(field, f"has more than {_PORTS_MAX} ports")
        return
    for known in spec.ports:
        if known.protocol != port.protocol:
            continue
        if known.published == port.published and (port.published or known.target == port.target):
            if port.published and known.target != port.target:
                reader.refuse(field, f"publishes {port.published}/{port.protocol} a second time")
            return
    spec.ports.append(port)


def _short(reader: Reader, field: Field) -> list[objects_pb2.PortSpec]:
    text = reader.text(field)
    if not text:
        return []
    try:
        body, protocol = _protocol(text)
        if body.count(":") > 1 or "[" in body:
            raise ValueError(
                f"{text!r} names a host address, which is not supported yet: "
                'a published port is open on every host; write "8080:80"'
            )
        match = _SHORT.fullmatch(body)
        if match is None:
            raise ValueError(f'{text!r} is not a port; write it like "8080:80" or "53:53/udp"')
        targets = _range(match["target"])
        if not match["published"]:
            _warn_unpublished(reader, field, text)
            return [_port(protocol, target) for target in targets]
        return _paired(text, protocol, _range(match["published"]), targets)
    except ValueError as error:
        reader.refuse(field, str(error))
        return []


def _long(reader: Reader, field: Field) -> list[objects_pb2.PortSpec]:
    entries = reader.known_entries(field, _LONG_KEYS, _HINTS)
    if "target" not in entries:
        reader.refuse(field, "has no target, the port in the container")
        return []
    target = reader.integer(entries["target"], 1, 65535)
    protocol = "tcp"
    if "protocol" in entries:
        protocol = reader.text(entries["protocol"]).lower()
        if protocol not in ("tcp", "udp"):
            reader.refuse(entries["protocol"], f"{protocol!r} is neither tcp nor udp")
            return []
    if "mode" in entries and (mode := reader.text(entries["mode"])) != "ingress":
        if mode == "host":
            reader.unsupported(entries["mode"], "mode host is not supported yet: ports are published on every host")
        else:
            reader.refuse(entries["mode"], f"{mode!r} is not ingress")
    if target == 0:
        return []
    published_field = entries.get("published")
    if published_field is None or published_field.is_null:
        _warn_unpublished(reader, field, str(target))
        return [_port(protocol, target)]
    nothing: list[int] = []
    published = reader.parsed(published_field, _range, nothing)
    if len(published) > 1:
        reader.unsupported(published_field, "choose one port instead of a range")
        return []
    return [_port(protocol, target, number) for number in published]


def _warn_unpublished(reader: Reader, field: Field, text: str) -> None:
    reader.problems.warn(
        field.line,
        field.path,
        f"port {text} names no port on the hosts and is reachable by the service's name only; "
        f'"8080:{text}" would publish it',
    )


def _targets(text: str) -> list[objects_pb2.PortSpec]:
    body, protocol = _protocol(text)
    return [_port(protocol, target) for target in _range(body)]


def _paired(text: str, protocol: str, published: list[int], targets: list[int]) -> list[objects_pb2.PortSpec]:
    if len(published) != len(targets):
        raise ValueError(f"{text!r}: both ranges must be of the same length")
    return [_port(protocol, target, number) for number, target in zip(published, targets, strict=True)]


def _protocol(text: str) -> tuple[str, str]:
    body, slash, protocol = text.strip().partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"{text!r}: the protocol must be tcp or udp")
    return body, protocol


def _range(text: str) -> list[int]:
    first, dash, last = text.strip().partition("-")
    low = _number(first)
    high = _number(last) if dash else low
    if high < low:
        raise ValueError(f"{text!r}: the range runs backwards")
    if high - low >= _PORTS_MAX:
        raise ValueError(f"{text!r}: a range holds at most {_PORTS_MAX} ports")
    return list(range(low, high + 1))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port between 1 and 65535")
    return int(text)


def _port(protocol: str, target: int, published: int = 0) -> objects_pb2.PortSpec:
    return objects_pb2.PortSpec(protocol=protocol, target=target, published=published)
