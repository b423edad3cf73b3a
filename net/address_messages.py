"""Addresses of interfaces, both ways, packed by hand: every task's interface has some.

Formats: the kernel's `include/uapi/linux/if_addr.h`.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from net.netlink import CREATE, REPLACE, Answer, Request, attribute, attribute_map
from net.pyroute2_messages import rtnl
from net.route_messages import family_of, pack_address, unpack_address

SCOPE_GLOBAL: int = rtnl.rt_scope["universe"]
SCOPE_LINK: int = rtnl.rt_scope["link"]

_HEADER = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
# No duplicate address detection, which would keep an IPv6 address from being used for a second (RFC 4862, 5.4).
_IFA_F_NODAD = 0x02


class Address(NamedTuple):
    """An address on an interface; ours are all a /32, or an IPv6 one a /128."""

    address: str
    scope: int
    device: int
    prefix_bits: int = 0  # 0: all of the address's


def new_address(item: Address) -> Request:
    packed = pack_address(item.address)
    body = _header(item, _IFA_F_NODAD if len(packed) == 16 else 0)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Request(rtnl.RTM_NEWADDR, CREATE | REPLACE, body, f"add address {item.address}")


def delete_address(item: Address) -> Request:
    # The kernel finds nothing where the length of the prefix is another.
    packed = pack_address(item.address)
    body = _header(item, 0) + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Request(rtnl.RTM_DELADDR, 0, body, f"remove address {item.address}")


def list_addresses(device: int = 0) -> Request:
    """Of every family; of one device only where its number is given (kernel 4.20)."""
    return Request(rtnl.RTM_GETADDR, 0, _HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, device), "list addresses")


def read_address(answer: Answer) -> Address | None:
    """None for what is of another family."""
    family, bits, _, scope, device = _HEADER.unpack_from(answer.body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attribute_map(answer.body, _HEADER.size)
    local = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return Address(unpack_address(local), scope, device, bits % (8 * len(local))) if local else None


def _header(item: Address, flags: int) -> bytes:
    family = family_of(item.address)
    bits = item.prefix_bits or (32 if family == socket.AF_INET else 128)
    return _HEADER.pack(family, bits, flags, item.scope, item.device)
