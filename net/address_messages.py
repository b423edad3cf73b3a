"""Addresses of interfaces, both ways, by pyroute2's classes."""

from __future__ import annotations

import socket
from typing import NamedTuple

from net.netlink import CREATE, REPLACE, Answer, Request
from net.pyroute2_messages import decode, encode, ifaddrmsg, rtnl

SCOPE_GLOBAL: int = rtnl.rt_scope["universe"]
SCOPE_LINK: int = rtnl.rt_scope["link"]


class Address(NamedTuple):
    """An address as a /32 on an interface."""

    address: str
    scope: int
    device: int


def new_address(item: Address) -> Request:
    pairs = [("IFA_LOCAL", item.address), ("IFA_ADDRESS", item.address)]
    return Request(rtnl.RTM_NEWADDR, CREATE | REPLACE, _body(item, pairs), f"add address {item.address}")


def delete_address(item: Address) -> Request:
    return Request(rtnl.RTM_DELADDR, 0, _body(item, [("IFA_LOCAL", item.address)]), f"remove address {item.address}")


def list_addresses() -> Request:
    return Request(rtnl.RTM_GETADDR, 0, encode(ifaddrmsg, family=socket.AF_INET), "list addresses")


def read_address(answer: Answer) -> Address | None:
    """None for what is not IPv4."""
    message = decode(ifaddrmsg, answer)
    local = message.get_attr("IFA_LOCAL")
    if message["family"] != socket.AF_INET or local is None:
        return None
    return Address(local, message["scope"], message["index"])


def _body(item: Address, pairs: list[tuple[str, str]]) -> bytes:
    return encode(ifaddrmsg, pairs, family=socket.AF_INET, prefixlen=32, scope=item.scope, index=item.device)
