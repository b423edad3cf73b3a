"""Which WireGuard devices a host has, and what has to be told to them; pure.

An epoch is one set of keys of the whole cluster. Its device is one of two, by whether its number is even or odd, so
that the next epoch's stands beside the present one's. Inside, each host has one address, the same in every epoch, that
the VXLAN device sends to; which device the packets take is a matter of a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from net.addresses import wireguard_interfaces
from net.model import DesiredNetwork, Encryption, Host
from net.route_messages import ROUTE_UNICAST, ROUTE_UNREACHABLE, TABLE_MAIN, Route

# Benchmarks' addresses (RFC 2544), which no network routes, and a ULA (RFC 4193): never seen outside of the devices.
INNER_POOL, INNER_HALVES = "198.18.0.0/16", ("198.18.0.0/17", "198.18.128.0/17")
INNER_POOL_IPV6 = "fdfa:6972:7761:7900::/112"
INNER_HALVES_IPV6 = ("fdfa:6972:7761:7900::/113", "fdfa:6972:7761:7900::8000/113")

# IP, UDP, WireGuard's header and its tag (https://www.wireguard.com/protocol/).
OVERHEAD_BYTES, OVERHEAD_IPV6_BYTES = 60, 80


class Peer(NamedTuple):
    """Another host's device of one epoch."""

    public_key: bytes
    endpoint: str  # underlay address; empty where an observed one has none
    port: int  # UDP
    inner: str  # the only address that it may send from, and what is sent to it


class Observed(NamedTuple):
    """A device as the kernel or wireguard-go shows it."""

    private_key: bytes  # empty: none
    port: int
    peers: dict[bytes, Peer]


@dataclass
class Device:
    """A device as it has to be, but for its private key."""

    name: str
    epoch: int
    port: int
    inner: str
    peers: dict[bytes, Peer] = field(default_factory=dict)


class PeerChange(NamedTuple):
    """What is to be told to a device."""

    put: list[Peer]
    removed: list[bytes]


def device_name(prefix: str, epoch: int) -> str:
    return wireguard_interfaces(prefix)[epoch % 2]


def device_port(encryption: Encryption, epoch: int) -> int:
    return encryption.port + epoch % 2


def inner_address(host: Host) -> str:
    """A host's address inside, of its underlay address's family: a VXLAN device sends by one family only."""
    if ":" in host.address:
        return str(IPv6Address(INNER_POOL_IPV6.partition("/")[0]) + host.ordinal)
    return str(IPv4Address(INNER_POOL.partition("/")[0]) + host.ordinal)


def overhead_bytes(desired: DesiredNetwork) -> int:
    """What WireGuard takes of every packet; counted as soon as it is being prepared, before anybody sends by it."""
    if not desired.config.encryption.epochs:
        return 0
    return OVERHEAD_IPV6_BYTES if ":" in desired.local.address else OVERHEAD_BYTES


def remote_address(desired: DesiredNetwork, host: Host) -> str:
    """Where the VXLAN device sends the frames of a host: never to its underlay address while hosts encrypt."""
    return inner_address(host) if desired.config.encryption.sending else host.address


def tunnel_source(desired: DesiredNetwork) -> str:
    """The VXLAN device's own address; empty while WireGuard is there: it may be either, as the route says."""
    return "" if desired.config.encryption.epochs else desired.local.address


def accepts_clear(encryption: Encryption) -> bool:
    return 0 in encryption.receiving


def devices_of(desired: DesiredNetwork, prefix: str) -> list[Device]:
    """Those of every epoch that is received, the one that is sent by first."""
    encryption = desired.config.encryption
    return [_device(desired, epoch, prefix) for epoch in sorted(encryption.epochs, key=encryption.sending.__ne__)]


def _device(desired: DesiredNetwork, epoch: int, prefix: str) -> Device:
    port = device_port(desired.config.encryption, epoch)
    device = Device(device_name(prefix, epoch), epoch, port, inner_address(desired.local))
    for host in desired.hosts:
        if host.node_id == desired.local.node_id:
            continue
        for of_epoch, key in host.keys:
            if of_epoch == epoch:
                device.peers[key] = Peer(key, host.address, port, inner_address(host))
    return device


def routes_of(desired: DesiredNetwork, device: int) -> set[Route]:
    """The way to the inner addresses; `device`: the number of the one that is sent by, 0 where it is not there.

    Two halves lead into the device and the whole leads nowhere: what the device does not take, because it has
    just gone, is never sent in the clear to some default gateway.
    """
    if not desired.config.encryption.epochs:
        return set()
    ipv6 = ":" in desired.local.address
    pool, halves = (INNER_POOL_IPV6, INNER_HALVES_IPV6) if ipv6 else (INNER_POOL, INNER_HALVES)
    routes = {Route(TABLE_MAIN, pool, ROUTE_UNREACHABLE, "", 0, "")}
    if device:
        source = inner_address(desired.local)
        routes |= {Route(TABLE_MAIN, half, ROUTE_UNICAST, "", device, source) for half in halves}
    return routes


def peer_change(wanted: Mapping[bytes, Peer], present: Mapping[bytes, Peer], told: Mapping[bytes, Peer]) -> PeerChange:
    """`told`: what the device was last told by this process. A peer's endpoint may differ from that rightly: it
    follows the address that the peer's packets come from."""

    def as_wanted(key: bytes, peer: Peer) -> bool:
        there = present.get(key)
        return there is not None and there.inner == peer.inner and told.get(key) == peer

    put = [peer for key, peer in wanted.items() if not as_wanted(key, peer)]
    return PeerChange(put, [key for key in present if key not in wanted])
