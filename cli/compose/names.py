"""`dns`, `dns_search`, `dns_opt` and `extra_hosts` of a service: what its tasks' resolvers are told."""

from __future__ import annotations

import ipaddress
import re

from cli.compose.reader import Field, Reader
from proto import objects_pb2

SERVERS_MAX = 3
SEARCH_DOMAINS_MAX = 6
HOST_GATEWAY = "host-gateway"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_OPTION = re.compile(r"[a-z0-9-]{1,40}(:\d{1,5})?")


def read_dns(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """One address or a list of them."""
    for each, text in reader.texts(field, single=True):
        if _is_address(text):
            container.dns_servers.append(text)
        else:
            reader.refuse(each, f"{text!r} is not the IP address of a name server")
    _bound(reader, field, len(container.dns_servers), SERVERS_MAX, "name servers")


def read_dns_search(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """One domain or a list of them; "." for none."""
    for each, text in reader.texts(field, single=True):
        domain = text if text == "." else text.rstrip(".")
        if domain != "." and not _NAME.fullmatch(domain):
            reader.refuse(each, f"{text!r} is not a domain")
        container.dns_search.append(domain)
    _bound(reader, field, len(container.dns_search), SEARCH_DOMAINS_MAX, "search domains")


def read_dns_options(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """Options of resolv.conf(5)."""
    for each, text in reader.texts(field):
        if not _OPTION.fullmatch(text):
            reader.refuse(each, f'{text!r} is not an option of resolv.conf; write it like "ndots:2" or "rotate"')
        container.dns_options.append(text)


def read_extra_hosts(reader: Reader, field: Field, container: objects_pb2.ContainerSpec) -> None:
    """ "NAME:ADDRESS" or "NAME=ADDRESS" in a list, or a mapping whose values may be lists."""
    if field.is_mapping:
        for name, below in reader.entries(field).items():
            for each, text in reader.texts(below, single=True):
                _add_host(reader, each, name, text, container)
        return
    for each, text in reader.texts(field):
        separator = "=" if "=" in text else ":"
        name, _, address = text.partition(separator)
        _add_host(reader, each, name, address, container)


def _add_host(reader: Reader, field: Field, name: str, address: str, container: objects_pb2.ContainerSpec) -> None:
    plain = address.removeprefix("[").removesuffix("]")
    if not _NAME.fullmatch(name) or not (plain == HOST_GATEWAY or _is_address(plain)):
        reader.refuse(field, f'{name}={address} is not "NAME=ADDRESS" with an IP address or {HOST_GATEWAY}')
    container.extra_hosts.append(objects_pb2.HostAddress(name=name, address=plain))


def _bound(reader: Reader, field: Field, count: int, count_max: int, what: str) -> None:
    if count > count_max:
        reader.refuse(field, f"names {count} {what}; resolvers take {count_max} at most")


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
