"""Names that mean something by themselves: reverse names of addresses, and those that no server may be asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

REVERSE_4, REVERSE_6 = "in-addr.arpa", "ip6.arpa"
_HEXADECIMAL = frozenset("0123456789abcdef")
_NIBBLES = 32

Pool = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ReverseName:
    """A name below in-addr.arpa or ip6.arpa: of one address, or of a range that ends at a label."""

    first: ipaddress.IPv4Address | ipaddress.IPv6Address
    prefix_bits: int
    whole: bool  # one address

    def within(self, pool: Pool) -> bool:
        return self.prefix_bits >= pool.prefixlen and self.first.version == pool.version and self.first in pool


def read_reverse(name: str) -> ReverseName | None:
    """`4.3.2.1.in-addr.arpa` or the nibbles of ip6.arpa (RFC 1035, 3.5; RFC 3596, 2.5); None for anything else."""
    if name.endswith("." + REVERSE_4):
        numbers = name[: -len(REVERSE_4) - 1].split(".")[::-1]
        if len(numbers) > 4 or not all(_is_byte(each) for each in numbers):
            return None
        text = ".".join(numbers + ["0"] * (4 - len(numbers)))
        return ReverseName(ipaddress.IPv4Address(text), 8 * len(numbers), len(numbers) == 4)
    if name.endswith("." + REVERSE_6):
        nibbles = name[: -len(REVERSE_6) - 1].split(".")[::-1]
        if len(nibbles) > _NIBBLES or not all(len(each) == 1 and each in _HEXADECIMAL for each in nibbles):
            return None
        number = int("".join(nibbles).ljust(_NIBBLES, "0"), 16)
        return ReverseName(ipaddress.IPv6Address(number), 4 * len(nibbles), len(nibbles) == _NIBBLES)
    return None


def reverse_zone(name: str, pool: Pool) -> str:
    """The zone that a name within a pool belongs to: the pool's prefix rounded up to whole labels."""
    bits, labels_of_suffix = (8, 2) if pool.version == 4 else (4, 2)
    count = -(-pool.prefixlen // bits) + labels_of_suffix
    return ".".join(name.split(".")[-count:])


def own_addresses(name: str) -> Sequence[str] | None:
    """The addresses of `localhost` and what is below it (RFC 6761, 6.3); None for other names."""
    if name == "localhost" or name.endswith(".localhost"):
        return ("127.0.0.1", "::1")
    return None


def never_exists(name: str) -> bool:
    """Names that must not be asked of any server (RFC 6761, 6.4; RFC 7686; RFC 6303 for link-local addresses)."""
    last = name.rpartition(".")[2]
    return last in ("invalid", "onion") or name.endswith(".254.169." + REVERSE_4)


def _is_byte(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= 255 and str(int(text)) == text
