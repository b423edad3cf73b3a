"""How this host's kernel would send a packet: its own decision, with rules, other programs' routes and filters of
source addresses, not a look at what we wrote (RTM_GETROUTE, as `ip route get`)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass

from net.errors import KernelRefused
from net.netlink import Netlink, Request, attribute, attribute_map, u32
from net.route_messages import GETROUTE

_HEADER = struct.Struct("=BBBBBBBBI")
_DESTINATION, _SOURCE, _IN_DEVICE, _OUT_DEVICE, _GATEWAY, _METRICS, _TABLE = 1, 2, 3, 4, 5, 8, 15
_METRIC_MTU = 2
_KINDS = {6: "blackhole", 7: "unreachable", 8: "prohibited"}
_WORDS = {
    errno.ENETUNREACH: "there is no route",
    errno.EHOSTUNREACH: "a route says that it is unreachable",
    errno.EACCES: "a route or rule prohibits it",
    errno.EXDEV: "the kernel drops it: its source address should come in by another interface (rp_filter)",
    # A blackhole, and what ip_route_input refuses as martian.
    errno.EINVAL: "the kernel drops it: a blackhole route or rule, or a source address that it does not believe",
}


@dataclass(frozen=True)
class Decision:
    """Where a packet would go; `device` "" and `error` in words where it goes nowhere."""

    address: str
    device: str = ""
    gateway: str = ""
    mtu_bytes: int = 0  # of the route; 0: the device's
    local: bool = False
    error: str = ""


def look_up(netlink: Netlink, address: str, source: str = "", in_device: str = "") -> Decision:
    """The route to `address`; with `in_device`, of a packet from `source` that comes in by that interface."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bits = 128 if family == socket.AF_INET6 else 32
    body = _HEADER.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_DESTINATION, socket.inet_pton(family, address))
    if source:
        body += attribute(_SOURCE, socket.inet_pton(family, source))
    if in_device:
        try:
            body += u32(_IN_DEVICE, socket.if_nametoindex(in_device))
        except OSError:
            return Decision(address, error=f"the interface {in_device}, by which it would come in, is missing")
    try:
        answer = netlink.get(Request(GETROUTE, 0, body, f"look up the route to {address}"))
    except KernelRefused as error:
        return Decision(address, error=_WORDS.get(error.code) or os.strerror(error.code))
    if answer is None:
        return Decision(address, error=_WORDS[errno.ENETUNREACH])
    return _read(address, family, answer.body)


def _read(address: str, family: int, body: bytes) -> Decision:
    kind = _HEADER.unpack_from(body)[7]
    if kind in _KINDS:
        return Decision(address, error=f"a route says that it is {_KINDS[kind]}")
    found = attribute_map(body, _HEADER.size)
    number = struct.unpack("=I", found[_OUT_DEVICE])[0] if _OUT_DEVICE in found else 0
    try:
        device = socket.if_indextoname(number) if number else ""
    except OSError:
        device = f"interface {number}"
    gateway = socket.inet_ntop(family, found[_GATEWAY]) if _GATEWAY in found else ""
    metrics = attribute_map(found.get(_METRICS, b""))
    mtu = struct.unpack("=I", metrics[_METRIC_MTU])[0] if _METRIC_MTU in metrics else 0
    return Decision(address, device, gateway, mtu, local=kind == 2)
