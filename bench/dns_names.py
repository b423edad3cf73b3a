"""The names of the DNS benchmark: 1,000 services of 10 tasks, in IPv4 and IPv6; some that are asked for are missing."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator

DOMAIN = "fairway.internal"
APP = "shop"
NETWORK = "A"
IPV6_PREFIX = "fd00:f00d::/96"
SERVICES = 1000
BACKENDS = 10
QUESTIONS = 5000
_FIRST_VIP = int(ipaddress.IPv4Address("10.120.0.0"))
_FIRST_TASK = int(ipaddress.IPv4Address("10.112.1.0"))
_PREFIX = int(ipaddress.IPv6Network(IPV6_PREFIX).network_address)


def service(number: int) -> str:
    return f"service-{number}"


def vip(number: int) -> str:
    return str(ipaddress.IPv4Address(_FIRST_VIP + 1 + number))


def backend(number: int, slot: int) -> str:
    """Slots begin with 1."""
    return str(ipaddress.IPv4Address(_FIRST_TASK + number * BACKENDS + slot))


def ipv6(address: str) -> str:
    return str(ipaddress.IPv6Address(_PREFIX + int(ipaddress.IPv4Address(address))))


def complete(number: int) -> str:
    return f"{service(number)}.{APP}.{DOMAIN}"


def task(number: int, slot: int) -> str:
    return f"{service(number)}.{slot}.{APP}.{DOMAIN}"


def records() -> Iterator[tuple[str, str]]:
    """(name, address) of all that exists."""
    for number in range(SERVICES):
        for name, address in (
            (complete(number), vip(number)),
            *((task(number, slot), backend(number, slot)) for slot in range(1, BACKENDS + 1)),
        ):
            yield name, address
            yield name, ipv6(address)


def questions(seed: int = 1) -> Iterator[tuple[str, str]]:
    """(name, type): 45 % A and 30 % AAAA of services, 15 % A of tasks, 5 % PTR, 5 % names that are missing."""
    chance = random.Random(seed)
    for _ in range(QUESTIONS):
        number, slot, kind = chance.randrange(SERVICES), chance.randrange(1, BACKENDS + 1), chance.random()
        if kind < 0.45:
            yield complete(number), "A"
        elif kind < 0.75:
            yield complete(number), "AAAA"
        elif kind < 0.9:
            yield task(number, slot), "A"
        elif kind < 0.95:
            yield ipaddress.ip_address(vip(number)).reverse_pointer, "PTR"
        else:
            yield f"missing-{number}.{APP}.{DOMAIN}", "A"
