"""Where a floating address goes on a host, and the frames that tell the neighbours of it; pure.

Announcements: IPv4 by ARP (RFC 5227, section 2.3), IPv6 by an unsolicited neighbour advertisement (RFC 4861, sections
4.4 and 7.2.6), each as a whole Ethernet frame.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from net.route_messages import pack_address

_ETHERTYPE_ARP, _ETHERTYPE_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ARP_REQUEST, _ARP_REPLY = 1, 2
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


class InterfaceAddress(NamedTuple):
    """What a host has already."""

    device: int
    address: str
    prefix_bits: int


def device_for(address: str, present: Iterable[InterfaceAddress], underlay_address: str) -> int | None:
    """The interface whose subnet holds `address`, the narrowest if several do, else the underlay's; None: neither.

    A host's own /32 is no subnet."""
    wanted = ipaddress.ip_address(address)
    best: tuple[int, int] | None = None
    underlay = None
    for each in present:
        if each.address == underlay_address:
            underlay = each.device
        if (":" in each.address) != (wanted.version == 6) or each.prefix_bits == wanted.max_prefixlen:
            continue
        subnet = ipaddress.ip_network(f"{each.address}/{each.prefix_bits}", strict=False)
        if wanted in subnet and (best is None or each.prefix_bits > best[0]):
            best = (each.prefix_bits, each.device)
    return best[1] if best is not None else underlay


def valid_seconds(remaining_s: float) -> int:
    """How long the kernel is to keep an address that may be held for `remaining_s` more; 0: it must go now."""
    return max(int(remaining_s), 0)


def announcements(address: str, mac: bytes) -> list[bytes]:
    """Frames that move the address to `mac` in the neighbours' tables."""
    packed = pack_address(address)
    if len(packed) == 16:
        return [_advertisement(packed, mac)]
    # Some heed only requests and some only replies.
    return [_arp(kind, packed, mac) for kind in (_ARP_REQUEST, _ARP_REPLY)]


def _arp(kind: int, address: bytes, mac: bytes) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, kind) + mac + address
    body += (bytes(6) if kind == _ARP_REQUEST else _BROADCAST) + address
    return _BROADCAST + mac + struct.pack(">H", _ETHERTYPE_ARP) + body


def _advertisement(address: bytes, mac: bytes) -> bytes:
    option = bytes([_TARGET_LINK_LAYER_ADDRESS, 1]) + mac
    rest = struct.pack(">I", _OVERRIDE) + address + option
    message = struct.pack(">BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0) + rest
    pseudo = address + _ALL_NODES + struct.pack(">II", len(message), socket.IPPROTO_ICMPV6)
    message = struct.pack(">BBH", _NEIGHBOUR_ADVERTISEMENT, 0, _checksum(pseudo + message)) + rest
    # Hop limit 255: receivers take nothing from further away (RFC 4861, 7.1.2).
    header = struct.pack(">IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255) + address + _ALL_NODES
    return _ALL_NODES_MAC + mac + struct.pack(">H", _ETHERTYPE_IPV6) + header + message


def _checksum(data: bytes) -> int:
    """RFC 1071; `data` is of even length."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
