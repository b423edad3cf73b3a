"""`ports` and `expose` of a service, in the short and the long form."""

from __future__ import annotations

import ipaddress
import re

from cli.compose.reader import Field, Reader
from proto import objects_pb2
from proto.objects_pb2 import PortSpec

_LONG_KEYS = frozenset({"target", "published", "protocol", "mode", "host_ip", "name", "app_protocol"})
_MODES = {"ingress": PortSpec.MODE_INGRESS, "host": PortSpec.MODE_HOST}
_PROTOCOLS = ("tcp", "udp", "sctp")
# A host's address, if any, then the port on the hosts, if any, then the container's: 127.0.0.1:8080:80, [::1]:8080:80.
_SHORT = re.compile(r"(?:(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):)?(?P<published>[^:]*):)?(?P<target>[^:]+)")
_PORTS_MAX = 1000  # of one service


def read_ports(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> list[tuple[Field, PortSpec]]:
    """Appends to `spec.ports`; refuses what is published twice in the service. Returns where each was said."""
    found = []
    for each in reader.elements(field):
        for port in _long(reader, each) if each.is_mapping else _short(reader, each):
            found.append((each, port))
            _add(reader, each, port, spec)
    return found


def read_expose(reader: Reader, field: Field, spec: objects_pb2.ServiceSpec) -> None:
    """Ports that are balanced on the service's VIP and not published."""
    for each, text in reader.texts(field):
        try:
            for port in _targets(text):
                known = {(known.protocol, known.target) for known in spec.ports}
                if (port.protocol, port.target) not in known:
                    _add(reader, each, port, spec)
        except ValueError as error:
            reader.refuse(each, str(error))


def clash(one: PortSpec, other: PortSpec) -> bool:
    """Whether both want the same port at an address that both mean."""
    if not one.published or (one.published, one.protocol) != (other.published, other.protocol):
        return False
    return one.host_ip == other.host_ip or not one.host_ip or not other.host_ip


def _add(reader: Reader, field: Field, port: PortSpec, spec: objects_pb2.ServiceSpec) -> None:
    if len(spec.ports) >= _PORTS_MAX:
        if len(spec.ports) == _PORTS_MAX:
            reader.refuse(field, f"has more than {_PORTS_MAX} ports")
        return
    if port in spec.ports:
        return
    if any(clash(port, known) for known in spec.ports):
        reader.refuse(field, f"publishes {port.published}/{port.protocol} a second time")
        return
    spec.ports.append(port)


def _short(reader: Reader, field: Field) -> list[PortSpec]:
    text = reader.text(field)
    if not text:
        return []
    try:
        body, protocol = _protocol(text)
        match = _SHORT.fullmatch(body)
        if match is None:
            raise ValueError(f'{text!r} is not a port; write it like "8080:80", "127.0.0.1:8080:80" or "53:53/udp"')
        targets = _range(match["target"])
        if not match["published"]:
            if match["ip"]:
                raise ValueError(f"{text!r} names an address and no port at it; choose one")
            _warn_unpublished(reader, field, text)
            return [PortSpec(protocol=protocol, target=target) for target in targets]
        common = PortSpec(protocol=protocol, host_ip=_address(match["ip"]) if match["ip"] else "")
        return _paired(text, common, _range(match["published"]), targets)
    except ValueError as error:
        reader.refuse(field, str(error))
        return []


def _long(reader: Reader, field: Field) -> list[PortSpec]:
    entries = reader.known_entries(field, _LONG_KEYS)
    if "target" not in entries:
        reader.refuse(field, "has no target, the port in the container")
        return []
    before = len(reader.problems.found)
    nothing: list[int] = []
    targets = reader.parsed(entries["target"], _range, nothing)
    common = PortSpec(protocol="tcp")
    if "protocol" in entries:
        common.protocol = reader.text(entries["protocol"]).lower()
        if common.protocol not in _PROTOCOLS:
            reader.refuse(entries["protocol"], f"{common.protocol!r} is not tcp, udp or sctp")
    if "mode" in entries:
        common.mode = reader.choice(entries["mode"], _MODES, PortSpec.MODE_INGRESS)
    if "host_ip" in entries:
        common.host_ip = reader.parsed(entries["host_ip"], _address, "")
    if "name" in entries:
        common.name = reader.text(entries["name"])
    if "app_protocol" in entries:
        reader.text(entries["app_protocol"])  # a hint for people and tools: it changes nothing here
    published_field = entries.get("published")
    if published_field is None or published_field.is_null:
        if common.mode == PortSpec.MODE_HOST:
            reader.refuse(field, "has mode host and no published port; choose one")
        _warn_unpublished(reader, field, str(targets[0]) if targets else "")
        return [PortSpec(protocol=common.protocol, target=target, name=common.name) for target in targets]
    published = reader.parsed(published_field, _range, nothing)
    if len(reader.problems.found) > before:
        return []
    try:
        return _paired(reader.text(published_field), common, published, targets)
    except ValueError as error:
        reader.refuse(published_field, str(error))
        return []


def _warn_unpublished(reader: Reader, field: Field, text: str) -> None:
    reader.warn(
        field,
        f"port {text} names no port on the hosts and is reachable by the service's name only; "
        f'"8080:{text}" would publish it',
    )


def _targets(text: str) -> list[PortSpec]:
    body, protocol = _protocol(text)
    return [PortSpec(protocol=protocol, target=target) for target in _range(body)]


def _paired(text: str, common: PortSpec, published: list[int], targets: list[int]) -> list[PortSpec]:
    if len(published) != len(targets):
        raise ValueError(
            f"{text!r}: there are {len(published)} published and {len(targets)} target ports; each has its own"
        )
    ports = []
    for number, target in zip(published, targets, strict=True):
        port = PortSpec(target=target, published=number)
        port.MergeFrom(common)
        ports.append(port)
    return ports


def _protocol(text: str) -> tuple[str, str]:
    body, slash, protocol = text.strip().partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"{text!r}: the protocol must be tcp, udp or sctp")
    return body, protocol


def _address(text: str) -> str:
    """The address in its usual form; empty for those that mean every address."""
    stripped = text.strip().removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(stripped)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address of hosts") from None
    if address.version == 6 and address.is_loopback:
        raise ValueError(f"{text!r}: hosts publish to themselves over IPv4 only; use 127.0.0.1")
    return "" if address.is_unspecified else str(address)


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
