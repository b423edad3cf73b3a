"""One service as elements of the nftables sets: which backends its VIP and published ports lead to; pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from net.model import Endpoint, Frontend, Port
from net.route_messages import pack_address
from net.ruleset import Data

ServiceElements = dict[tuple[str, bytes], Data]
_PROTOCOLS = {"tcp": 6, "udp": 17}


def service_elements(frontend: Frontend, endpoints: Iterable[Endpoint]) -> ServiceElements:
    """(set, key) -> data for one service; only ready endpoints are backends.

    The numbers of backends are 0.. without a gap, since a chain draws one of `count`.
    """
    backends = [packed(each.address) for each in sorted(endpoints, key=_by_task) if each.ready]
    elements: ServiceElements = {}
    if frontend.vip and backends:
        vip = packed(frontend.vip)
        elements["vips", vip] = f"vip_{len(backends)}"
        for number, backend in enumerate(backends):
            elements["backends", vip + struct.pack("=I", number)] = backend
    for port in frontend.ports:
        if port.published:
            elements.update(_published(port, backends))
    return elements


def _published(port: Port, backends: list[bytes]) -> ServiceElements:
    if port.protocol not in _PROTOCOLS:
        raise ValueError(f"published port {port.published}: protocol {port.protocol!r} is neither tcp nor udp")
    key = struct.pack(">B3xH2x", _PROTOCOLS[port.protocol], port.published)
    if not backends:
        return {("refused", key): None}
    target = struct.pack(">H2x", port.target)
    elements: ServiceElements = {("published", key): f"published_{len(backends)}"}
    for number, backend in enumerate(backends):
        elements["published_backends", key + struct.pack("=I", number)] = backend + target
    return elements


@lru_cache(maxsize=65536)
def packed(address: str) -> bytes:
    return pack_address(address)


def _by_task(endpoint: Endpoint) -> str:
    return endpoint.task_id
