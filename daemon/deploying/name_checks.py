"""What a service says of names must be fit for DNS, resolv.conf and hosts files, whoever wrote its spec. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from proto import objects_pb2 as objects

HOST_GATEWAY = "host-gateway"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_OPTION = re.compile(r"[a-z0-9-]{1,40}(?::[0-9]{1,5})?")
_PORT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,60}[A-Za-z0-9])?")


def name_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """What of a service's DNS settings, extra hosts, aliases and names of ports cannot be, in words."""
    container = spec.container
    yield from (f"its name server {each!r} is not an IP address" for each in _not_addresses(container.dns_servers))
    yield from (f"{each!r} is not a search domain" for each in container.dns_search if not _is_domain(each))
    yield from (f"{each!r} is not an option of resolv.conf" for each in container.dns_options if not _is_option(each))
    for host in container.extra_hosts:
        if _NAME.fullmatch(host.name) is None or any(_not_addresses({host.address} - {HOST_GATEWAY})):
            yield f"the extra host {host.name}={host.address} is not a name and an IP address (or {HOST_GATEWAY})"
    for network, aliases in sorted(spec.network_aliases.items()):
        for alias in aliases.values:
            if _NAME.fullmatch(alias.rstrip(".")) is None:
                yield f"the alias {alias!r} in network {network} cannot be a name in DNS"
    for port in spec.ports:
        if port.name and _PORT_NAME.fullmatch(port.name) is None:
            yield f"port {port.target} has the name {port.name!r}; use letters, digits and '-', at most 62"


def _not_addresses(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            yield text


def _is_domain(text: str) -> bool:
    return text == "." or _NAME.fullmatch(text) is not None


def _is_option(text: str) -> bool:
    return _OPTION.fullmatch(text) is not None
