"""The addresses that a host has on interfaces of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from net import address_messages as messages
from net.netlink import PROTOCOL_ROUTE, Netlink

ADDRESSES_MAX = 16


def host_addresses(interface_prefix: str) -> list[str]:
    """Those that others may see it by, sorted; not of interfaces whose name begins with the prefix of ours. At most
    ADDRESSES_MAX. Raises KernelRefused."""
    with Netlink(PROTOCOL_ROUTE) as netlink:
        answers = netlink.dump(messages.list_addresses())
    found = set()
    for item in filter(None, map(messages.read_address, answers)):
        address = ipaddress.ip_address(item.address)
        if item.scope != messages.SCOPE_GLOBAL or address.is_loopback or address.is_link_local:
            continue
        name = ""
        with contextlib.suppress(OSError):  # just deleted
            name = socket.if_indextoname(item.device)
        if name and not name.startswith((f"{interface_prefix}t", f"{interface_prefix}x", f"{interface_prefix}w")):
            found.add(address)
    return [str(address) for address in sorted(found, key=lambda each: (each.version, each))[:ADDRESSES_MAX]]
