"""The address that other hosts most likely reach this one by: that of the default route's interface."""

from __future__ import annotations

import ipaddress
import itertools
import socket
from collections.abc import Iterable

from daemon.errors import Kind, Refused

# Documentation addresses (RFC 5737, RFC 3849): the kernel is asked for the route, nothing is ever sent.
_ANYWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
_PORT = 9
OTHERS_MAX = 8  # hosts whose routes are looked up; one that can be reached does


def own_address() -> str:
    """The source address that the kernel would choose for the outside. Raises Refused where it has none."""
    for version in (4, 6):
        address = _outside(version)
        if address is not None:
            return address
    raise Refused(
        "this host has no default route, so its address cannot be found out; give the address that other "
        "hosts reach it by: --address ADDRESS, or advertise_address in [host] of the configuration",
        Kind.NOT_POSSIBLE,
    )


def present_address(configured: str, joined: str, others: Iterable[str] = ()) -> str:
    """The address that this host has now: the configured one, else the one it joined with while it is still
    its own, else the one that packets to the other hosts leave from (`others`: their addresses), else that of the
    default route. A host may change its address; its node id stays, and so does the family that the cluster's hosts
    reach each other by."""
    if configured:
        return configured
    if joined and is_own_address(joined):
        return joined
    versions = (ipaddress.ip_address(joined).version,) if joined else (4, 6)
    found = itertools.chain(map(_address_towards, itertools.islice(others, OTHERS_MAX)), map(_outside, versions))
    # Without a route now: better the old one than none.
    return next((each for each in found if each and ipaddress.ip_address(each).version in versions), joined)


def is_own_address(address: str) -> bool:
    """Whether a socket can be bound to `address` here. Where any may be (ip_nonlocal_bind), it says yes."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _outside(version: int) -> str | None:
    """Of IP version 4 or 6; None where there is no route."""
    return _address_towards(_ANYWHERE[version])


def _address_towards(place: str) -> str | None:
    family = socket.AF_INET6 if ipaddress.ip_address(place).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((place, _PORT))  # of a datagram socket: only looks up the route (udp(7))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    value = ipaddress.ip_address(address)
    return None if value.is_unspecified or value.is_loopback or value.is_link_local else address
