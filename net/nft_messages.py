"""nftables messages by hand, for what comes in thousands: elements and rules; and reading of dumps.

Formats: the kernel's `include/uapi/linux/netfilter/nf_tables.h`. One attribute holds 64 KiB at most, so
elements go in chunks. A rule carries its comment (nftables' user data type 0), which `nft` shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from net.netlink import (
    APPEND,
    CREATE,
    Answer,
    Request,
    attribute,
    attribute_map,
    attributes,
    nest,
    text,
    u32_network,
)
from net.nft_expressions import GOTO, value, verdict_data
from net.pyroute2_messages import NFNL_SUBSYS_NFTABLES, nft
from net.ruleset import VERDICT_TYPE, Data, Hook, Rule, SetShape

FAMILY: int = nft.NFPROTO_INET  # of the table: IPv4 and IPv6 in one

_SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
_HEADER = struct.Struct(">BBH")
_ELEMENTS_PER_MESSAGE = 400
_COUNTER = 1  # among nftables' kinds of objects

BEGIN = Request(0x10, 0, _HEADER.pack(0, 0, NFNL_SUBSYS_NFTABLES), "begin an nftables transaction")
END = Request(0x11, 0, _HEADER.pack(0, 0, NFNL_SUBSYS_NFTABLES), "commit an nftables transaction")


def _request(kind: int, flags: int, body: bytes, asked: str) -> Request:
    return Request(_SUBSYSTEM | kind, flags, _HEADER.pack(FAMILY, 0, 0) + body, asked)


def new_plain_chain(table: str, name: str) -> Request:
    """A chain without a hook: services and networks have some each."""
    return _request(nft.NFT_MSG_NEWCHAIN, CREATE, text(1, table) + text(3, name), f"make nftables chain {name}")


def flush_chain(table: str, name: str) -> Request:
    return _request(nft.NFT_MSG_DELRULE, 0, text(1, table) + text(2, name), f"empty nftables chain {name}")


def new_rule(table: str, chain: str, rule: Rule) -> Request:
    comment = rule.tagged_comment.encode()[:127] + b"\0"
    body = text(1, table) + text(2, chain) + nest(4, rule.expressions)
    body += attribute(7, bytes([0, len(comment)]) + comment)
    return _request(nft.NFT_MSG_NEWRULE, CREATE | APPEND, body, f"add nftables rule to {chain}: {rule.comment}")


def elements(table: str, name: str, items: Iterable[tuple[bytes, Data]], *, remove: bool) -> Iterator[Request]:
    """Adds or removes elements of a set, in as many messages as they need."""
    kind, flags = (nft.NFT_MSG_DELSETELEM, 0) if remove else (nft.NFT_MSG_NEWSETELEM, CREATE)
    verb = "remove elements from" if remove else "add elements to"
    packed = [_element(key, None if remove else data) for key, data in items]
    for start in range(0, len(packed), _ELEMENTS_PER_MESSAGE):
        body = text(1, table) + text(2, name) + nest(3, *packed[start : start + _ELEMENTS_PER_MESSAGE])
        yield _request(kind, flags, body, f"{verb} nftables set {name}")


def _element(key: bytes, data: Data) -> bytes:
    if data is None:
        return nest(1, value(1, key))
    if isinstance(data, str):
        return nest(1, value(1, key), verdict_data(2, GOTO, data))
    return nest(1, value(1, key), value(2, data))


def list_chains() -> Request:
    return _request(nft.NFT_MSG_GETCHAIN, 0, b"", "list nftables chains")


def list_sets(table: str) -> Request:
    return _request(nft.NFT_MSG_GETSET, 0, text(1, table), "list nftables sets")


def list_rules(table: str) -> Request:
    return _request(nft.NFT_MSG_GETRULE, 0, text(1, table), "list nftables rules")


def list_elements(table: str, name: str) -> Request:
    return _request(nft.NFT_MSG_GETSETELEM, 0, text(1, table) + text(2, name), f"list nftables set {name}")


def new_counter(table: str, name: str) -> Request:
    """A counter of packets and bytes, from 0; one that is there goes on counting."""
    body = text(1, table) + text(2, name) + u32_network(3, _COUNTER) + nest(4, b"")
    return _request(nft.NFT_MSG_NEWOBJ, CREATE, body, f"make nftables counter {name}")


def delete_counter(table: str, name: str) -> Request:
    body = text(1, table) + text(2, name) + u32_network(3, _COUNTER)
    return _request(nft.NFT_MSG_DELOBJ, 0, body, f"remove nftables counter {name}")


def list_counters(table: str) -> Request:
    body = text(1, table) + u32_network(3, _COUNTER)
    return _request(nft.NFT_MSG_GETOBJ, 0, body, "list nftables counters")


def read_counter(answer: Answer, table: str) -> tuple[str, int, int] | None:
    """(name, packets, bytes)."""
    found = attribute_map(answer.body, 4)
    if answer.body[0] != FAMILY or _string(found, 1) != table:
        return None
    counts = attribute_map(found.get(4, b""))
    packets, octets = (int.from_bytes(counts.get(kind, b""), "big") for kind in (2, 1))
    return _string(found, 2), packets, octets


def get_generation() -> Request:
    return Request(_SUBSYSTEM | nft.NFT_MSG_GETGEN, 0, _HEADER.pack(0, 0, 0), "ask for the nftables generation")


def read_generation(answer: Answer) -> int:
    """A number that changes with every transaction of anyone in this network namespace."""
    return int.from_bytes(attribute_map(answer.body, 4).get(1, b""), "big")


def read_chain(answer: Answer, table: str) -> tuple[str, Hook | None] | None:
    """The name of a chain, and where it hooks in."""
    found = attribute_map(answer.body, 4)
    if answer.body[0] != FAMILY or _string(found, 1) != table:
        return None
    if 4 not in found:
        return _string(found, 3), None
    place = attribute_map(found[4])
    number, priority = int.from_bytes(place[1], "big"), int.from_bytes(place[2], "big", signed=True)
    return _string(found, 3), Hook(_string(found, 7), number, priority)


def read_set(answer: Answer, table: str) -> tuple[str, SetShape] | None:
    """The name and shape of a set; anonymous ones are none of ours."""
    found = attribute_map(answer.body, 4)
    if answer.body[0] != FAMILY or _string(found, 1) != table:
        return None
    key_type, key_bytes, data_type, data_bytes = (int.from_bytes(found.get(kind, b""), "big") for kind in range(4, 8))
    if data_type == VERDICT_TYPE:
        return _string(found, 2), SetShape(key_type, key_bytes, goes_to_chains=True)
    return _string(found, 2), SetShape(key_type, key_bytes, data_type, data_bytes)


def read_rule(answer: Answer, table: str) -> tuple[str, str] | None:
    """The chain and the tagged comment ("" without one) of a rule."""
    found = attribute_map(answer.body, 4)
    if answer.body[0] != FAMILY or _string(found, 1) != table:
        return None
    user_data = found.get(7, b"")
    comment = ""
    if len(user_data) > 2 and user_data[0] == 0:
        comment = user_data[2 : 2 + user_data[1]].rstrip(b"\0").decode(errors="replace")
    return _string(found, 2), comment


def read_elements(answer: Answer) -> Iterator[tuple[bytes, Data]]:
    for kind, listed in attributes(answer.body, 4):
        if kind != 3:
            continue
        for _, element in attributes(listed):
            parts = attribute_map(element)
            key = attribute_map(parts.get(1, b"")).get(1, b"")
            yield key, _read_data(parts.get(2))


def _read_data(data: bytes | None) -> Data:
    if data is None:
        return None
    parts = attribute_map(data)
    if 1 in parts:
        return parts[1]
    return _string(attribute_map(parts.get(2, b"")), 2)


def _string(found: dict[int, bytes], kind: int) -> str:
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")
