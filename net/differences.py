"""A difference between kernel and desired network: a sentence, and the kind of object that it is about; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DEVICE, ADDRESS, ROUTE, NEIGHBOUR = "device", "address", "route", "neighbour"
FORWARDING_ENTRY, RULE, NFTABLES, INTERFACE = "fdb", "rule", "nftables", "interface"
FORWARDING, DNS, CONNTRACK = "forwarding", "dns", "conntrack"
KINDS = (
    DEVICE,
    ADDRESS,
    ROUTE,
    NEIGHBOUR,
    FORWARDING_ENTRY,
    RULE,
    NFTABLES,
    INTERFACE,
    FORWARDING,
    DNS,
    CONNTRACK,
)


class Difference(str):
    """Reads as its sentence."""

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, kind: str, words: str) -> Difference:
        found = super().__new__(cls, words)
        found.kind = kind
        return found

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # a str's own has one
        return self.kind, str(self)


def of_kind(kind: str, words: Iterable[str]) -> list[str]:
    return [Difference(kind, each) for each in words]


def counted(found: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """`before` with the number of differences of each kind added."""
    counts = dict(before)
    for each in found:
        kind = each.kind if isinstance(each, Difference) else "other"
        counts[kind] = counts.get(kind, 0) + 1
    return counts
