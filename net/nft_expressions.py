"""nftables expressions by hand: each function returns one, a rule is their concatenation.

Formats: the kernel's `include/uapi/linux/netfilter/nf_tables.h`. Numbers are in network order except
what a register holds: marks, states and interface indexes are in the host's order there.
"""

from __future__ import annotations

import struct

from net.netlink import NESTED, attribute, nest, text, u8, u32_network
from net.route_messages import pack_address

# Registers: the verdict, the first three of 16 bytes, and the first words of 32 bits of all: four make a register.
VERDICT, FIRST, SECOND, THIRD = 0, 1, 2, 3
WORD_0, WORD_1, WORD_2, WORD_3, WORD_4 = 8, 9, 10, 11, 12

LINK_LAYER, NETWORK, TRANSPORT = 0, 1, 2
META_MARK, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 3, 6, 7, 15, 16
CT_STATE, CT_STATUS, CT_MARK, CT_DESTINATION_IP, CT_DESTINATION_IPV6 = 0, 2, 3, 20, 22
STATE_INVALID, STATE_ESTABLISHED, STATE_RELATED, STATE_NEW = 1, 2, 4, 8
STATUS_DNAT = 1 << 5
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
TYPE_LOCAL = 2
_HASH_SEED = 0x66776C62
_OBJECT_COUNTER = 1
# In nftables' own numbers, which it turns into those of ICMP and of ICMPv6.
PORT_UNREACHABLE, ADMINISTRATIVELY_PROHIBITED = 1, 3


_TWO_ATTRIBUTES = struct.Struct("=HHHH")


def expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *parts))


def value(kind: int, data: bytes) -> bytes:
    """nest(kind, attribute(1, data)), of which every element has two, at once."""
    padding = -len(data) % 4
    head = _TWO_ATTRIBUTES.pack(8 + len(data) + padding, kind | NESTED, 4 + len(data), 1)
    return head + data + bytes(padding) if padding else head + data


def host_word(number: int) -> bytes:
    return struct.pack("=I", number)


def payload(register: int, base: int, offset: int, length: int) -> bytes:
    return expression(
        "payload",
        u32_network(1, register),
        u32_network(2, base),
        u32_network(3, offset),
        u32_network(4, length),
    )


def destination_port(register: int) -> bytes:
    return payload(register, TRANSPORT, 2, 2)


def ethernet_source(register: int = FIRST) -> bytes:
    return payload(register, LINK_LAYER, 6, 6)


def compare(data: bytes, *, unequal: bool = False, register: int = FIRST) -> bytes:
    return expression("cmp", u32_network(1, register), u32_network(2, int(unequal)), value(3, data))


def mask(bits: bytes, register: int = FIRST) -> bytes:
    return expression(
        "bitwise",
        u32_network(1, register),
        u32_network(2, register),
        u32_network(3, len(bits)),
        value(4, bits),
        value(5, bytes(len(bits))),
    )


def meta(key: int, register: int = FIRST) -> bytes:
    return expression("meta", u32_network(1, register), u32_network(2, key))


def set_mark(register: int = FIRST) -> bytes:
    return expression("meta", u32_network(2, META_MARK), u32_network(3, register))


def connection(key: int, register: int = FIRST) -> bytes:
    return expression("ct", u32_network(1, register), u32_network(2, key))


def of_original(key: int, register: int = FIRST) -> bytes:
    """Of a connection as it was asked for, before it was redirected."""
    return expression("ct", u32_network(1, register), u32_network(2, key), u8(3, 0))


def set_connection_mark(register: int = FIRST) -> bytes:
    return expression("ct", u32_network(2, CT_MARK), u32_network(4, register))


def connection_has(key: int, bits: int, *, no: bool = False) -> bytes:
    """Matches where any of `bits` is set in the connection's state, status or mark; `no`: where none is."""
    return connection(key) + mask(host_word(bits)) + compare(bytes(4), unequal=not no)


def lookup(set_name: str, register: int = FIRST, into: int | None = None, *, absent: bool = False) -> bytes:
    """Matches what a set holds; with `into`, also loads the map's value (VERDICT: follows it)."""
    parts = [text(1, set_name), u32_network(2, register)]
    if into is not None:
        parts.append(u32_network(3, into))
    if absent:
        parts.append(u32_network(5, 1))
    return expression("lookup", *parts)


def random_number(below: int, register: int) -> bytes:
    return expression("numgen", u32_network(1, register), u32_network(2, below), u32_network(3, 1), u32_network(4, 0))


def next_number(below: int, register: int) -> bytes:
    """Counts up with each packet that comes by, and starts again at `below`; the rule keeps the count."""
    return expression("numgen", u32_network(1, register), u32_network(2, below), u32_network(3, 0), u32_network(4, 0))


def hashed_number(below: int, source_register: int, length: int, register: int) -> bytes:
    """The same for the same `length` bytes on every host, which a fixed seed takes care of."""
    return expression(
        "hash",
        u32_network(1, source_register),
        u32_network(2, register),
        u32_network(3, length),
        u32_network(4, below),
        u32_network(5, _HASH_SEED),
        u32_network(6, 0),
        u32_network(7, 0),
    )


def verdict_data(kind: int, code: int, chain: str = "") -> bytes:
    return nest(kind, nest(2, u32_network(1, code), text(2, chain) if chain else b""))


def verdict(code: int, chain: str = "") -> bytes:
    return expression("immediate", u32_network(1, VERDICT), verdict_data(2, code, chain))


def load(data: bytes, register: int = FIRST) -> bytes:
    return expression("immediate", u32_network(1, register), value(2, data))


def destination_nat(address_register: int, port_register: int | None = None, *, family: int) -> bytes:
    parts = [u32_network(1, 1), u32_network(2, family), u32_network(3, address_register)]
    if port_register is not None:
        parts.append(u32_network(5, port_register))
    return expression("nat", *parts)


def source_nat(address: bytes, *, family: int) -> bytes:
    return load(address) + expression("nat", u32_network(1, 0), u32_network(2, family), u32_network(3, FIRST))


def masquerade() -> bytes:
    return expression("masq")


def reject_by_reset() -> bytes:
    return expression("reject", u32_network(1, 1))


def reject_by_icmp(code: int) -> bytes:
    return expression("reject", u32_network(1, 2), u8(2, code))


def fib_source_interface(register: int = FIRST) -> bytes:
    """Loads the interface that leads back to the packet's source if it came in by it, else 0."""
    return expression("fib", u32_network(1, register), u32_network(2, 1), u32_network(3, 1 | 8))


def fib_destination_type(register: int = FIRST) -> bytes:
    return expression("fib", u32_network(1, register), u32_network(2, 3), u32_network(3, 2))


def within(cidr: str, register: int = FIRST, *, outside: bool = False) -> bytes:
    """Compares the address in a register with a CIDR; a prefix of whole bytes would do without a mask."""
    address, length = cidr.split("/")
    packed = pack_address(address)
    size = 8 * len(packed)
    bits = (1 << size) - (1 << (size - int(length)))
    network = int.from_bytes(packed) & bits
    comparison = compare(network.to_bytes(len(packed)), unequal=outside, register=register)
    return mask(bits.to_bytes(len(packed)), register) + comparison


def between(first: int, last: int, register: int = FIRST) -> bytes:
    """Compares a port in a register with a range, ends included."""
    if first == last:
        return compare(struct.pack(">H", first), register=register)
    bounds = value(3, struct.pack(">H", first)) + value(4, struct.pack(">H", last))
    return expression("range", u32_network(1, register), u32_network(2, 0), bounds)


def tcp_begins(*, no: bool = False) -> bytes:
    """Matches TCP segments with SYN; `no`: those without."""
    flags = payload(FIRST, TRANSPORT, 13, 1) + mask(b"\x02") + compare(b"\0", unequal=not no)
    return meta(META_L4PROTO) + compare(b"\x06") + flags


def count(counter: str) -> bytes:
    """By a counter of the table with this name."""
    return expression("objref", u32_network(1, _OBJECT_COUNTER), text(2, counter))


def limit(per_second: int, burst: int) -> bytes:
    """Matches no more packets than that."""
    rate = attribute(1, struct.pack(">Q", per_second)) + attribute(2, struct.pack(">Q", 1))
    return expression("limit", rate, u32_network(3, burst))


def log(group: int, prefix: str, length: int) -> bytes:
    """Sends the first `length` bytes of a packet to who listens to a group of NFLOG, at once."""
    at_once = attribute(4, struct.pack(">H", 1))
    return expression("log", attribute(1, struct.pack(">H", group)), text(2, prefix), u32_network(3, length), at_once)


def from_interface(name: str, *, unequal: bool = False) -> bytes:
    """Matches the incoming interface; a name that ends in `*` is a prefix."""
    return meta(META_IIFNAME) + compare(_interface_bytes(name), unequal=unequal)


def to_interface(name: str, *, unequal: bool = False) -> bytes:
    return meta(META_OIFNAME) + compare(_interface_bytes(name), unequal=unequal)


def _interface_bytes(name: str) -> bytes:
    return name[:-1].encode() if name.endswith("*") else name.encode().ljust(16, b"\0")
