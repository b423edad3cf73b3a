"""Arithmetic on pools, blocks and MACs; pure.

IPv6 is derived, never leased: the address of a task, tunnel or VIP is the cluster's /96 and then the 32 bits of its
IPv4 address. An empty prefix means that there is no IPv6.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterator
from functools import lru_cache

# What every task has as its way out and first name server, on every host the same (RFC 3927: never routed).
GATEWAY_ADDRESS = "169.254.77.1"
# Leads to the name servers of other hosts, for while the local daemon is down.
PEER_DNS_ADDRESS = "169.254.77.2"
# The host's end of every task's veth. Each pair is a link of its own, so one MAC does for all.
GATEWAY_MAC = "02:66:77:00:00:01"
# The same way out for IPv6: on the host's end of every task's veth.
GATEWAY_ADDRESS_IPV6 = "fe80::1"
IPV6_PREFIX_BITS = 96


@lru_cache(maxsize=1 << 16)
def ipv6_of(prefix: str, address: str) -> str:
    """The IPv6 address beside an IPv4 address of ours; `prefix` is the cluster's /96. "" where either is empty."""
    if not prefix or not address:
        return ""
    return str(ipaddress.IPv6Address(_prefix_number(prefix) + int(ipaddress.IPv4Address(address))))


@lru_cache(maxsize=1 << 12)
def ipv6_block_of(prefix: str, block: str) -> str:
    """The IPv6 block beside an IPv4 block: `fd00:1::/96` and `10.112.3.0/24` give `fd00:1::a70:300/120`."""
    if not prefix or not block:
        return ""
    network, bits = block.split("/")
    return f"{ipv6_of(prefix, network)}/{IPV6_PREFIX_BITS + int(bits)}"


def ipv4_of(prefix: str, address: str) -> str:
    """The IPv4 address beside an IPv6 address of ours; "" where it does not lie in `prefix`."""
    if not prefix:
        return ""
    number = int(ipaddress.IPv6Address(address)) - _prefix_number(prefix)
    return str(ipaddress.IPv4Address(number)) if 0 <= number < 1 << 32 else ""


@lru_cache(maxsize=16)
def _prefix_number(prefix: str) -> int:
    """The first address of a prefix as a number; ValueError where it is not a /96."""
    network = ipaddress.IPv6Network(prefix)
    if network.prefixlen != IPV6_PREFIX_BITS:
        raise ValueError(f"IPv6 prefix {prefix}: its length must be {IPV6_PREFIX_BITS}")
    return int(network.network_address)


def tunnel_mac(node_id: str) -> str:
    """The MAC of a host's VXLAN device: locally administered, unicast, from the node's id."""
    digest = bytearray(hashlib.sha256(b"fairway tunnel " + node_id.encode()).digest()[:6])
    digest[0] = (digest[0] & 0xFC) | 0x02
    return digest.hex(":")


def task_mac(address: str) -> str:
    """The MAC of a task's own end of its veth: 02:66 and the four bytes of its address."""
    return (b"\x02\x66" + ipaddress.IPv4Address(address).packed).hex(":")


def block_count(pool: str, prefix_bits: int) -> int:
    """How many blocks of `prefix_bits` a pool holds; ValueError where it is shorter than the pool's."""
    network = ipaddress.IPv4Network(pool)
    if not network.prefixlen <= prefix_bits <= 30:
        raise ValueError(f"a host block of /{prefix_bits} cannot be cut from {pool}: choose /{network.prefixlen}..30")
    return int(2 ** (prefix_bits - network.prefixlen))


def block_of_pool(pool: str, prefix_bits: int, index: int) -> str:
    """The `index`-th (from 0) block of `prefix_bits` in a pool; ValueError beyond the last."""
    count = block_count(pool, prefix_bits)
    if not 0 <= index < count:
        raise ValueError(f"pool {pool} has {count} blocks of /{prefix_bits}; there is no number {index}")
    start = int(ipaddress.IPv4Network(pool).network_address) + index * 2 ** (32 - prefix_bits)
    return f"{ipaddress.IPv4Address(start)}/{prefix_bits}"


def first_address(block: str) -> str:
    """A block's first usable address: the host's own on the overlay."""
    return str(ipaddress.IPv4Network(block).network_address + 1)


def free_addresses(block: str, taken: Collection[str], first_index: int = 1) -> Iterator[str]:
    """Usable addresses of a block that are not in `taken`, in order, never its first and last.

    Index 0 is the network's own address; a host block's index 1 is the tunnel's, so task addresses start
    with `first_index` 2 and VIPs with 1.
    """
    network = ipaddress.IPv4Network(block)
    base = int(network.network_address)
    for index in range(first_index, network.num_addresses - 1):
        address = str(ipaddress.IPv4Address(base + index))
        if address not in taken:
            yield address


def contains(cidr: str, address: str) -> bool:
    return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(cidr)


def task_interface(prefix: str, task_id: str) -> str:
    """The host's end of a task's veth: at most 15 characters, as the kernel demands."""
    digest = hashlib.sha256(task_id.encode()).hexdigest()
    return f"{prefix}t{digest[: 14 - len(prefix)]}"


def tunnel_interface(prefix: str) -> str:
    return f"{prefix}x0"


def wireguard_interfaces(prefix: str) -> tuple[str, str]:
    """The devices of even and of odd epochs."""
    return f"{prefix}w0", f"{prefix}w1"
