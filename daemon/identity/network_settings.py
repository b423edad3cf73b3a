"""The cluster's addresses: defaults, and what is wrong with those that a person chose. Pure."""

from __future__ import annotations

import ipaddress
import re
from itertools import combinations

from daemon.errors import Refused
from proto import objects_pb2 as objects

HOST_POOL = "10.112.0.0/13"
HOST_PREFIX_BITS = 24
VIP_POOL = "10.120.0.0/16"
VXLAN_ID = 4242
VXLAN_PORT = 4789  # RFC 7348
DNS_DOMAIN = "fairway.internal"  # ICANN keeps .internal for private use (2024)

_MTU_BYTES_MIN, _MTU_BYTES_MAX = 1280, 65_485  # RFC 8200's least; 65535 less the tunnel's 50
_TRUSTED_MAX = 64
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

Network = ipaddress.IPv4Network


def complete(chosen: objects.NetworkSettings, host_address: str) -> objects.NetworkSettings:
    """`chosen` with defaults for its empty fields. Raises Refused where they cannot work together, or not
    with the host at `host_address`."""
    settings = objects.NetworkSettings(
        host_pool=chosen.host_pool or HOST_POOL,
        host_prefix_bits=chosen.host_prefix_bits or HOST_PREFIX_BITS,
        vip_pool=chosen.vip_pool or VIP_POOL,
        vxlan_id=chosen.vxlan_id or VXLAN_ID,
        vxlan_port=chosen.vxlan_port or VXLAN_PORT,
        mtu_bytes=chosen.mtu_bytes,
        dns_domain=(chosen.dns_domain or DNS_DOMAIN).lower().rstrip("."),
    )
    host_pool = _pool("host pool", settings.host_pool)
    vip_pool = _pool("VIP pool", settings.vip_pool)
    trusted = [_cidr("trusted source", text) for text in chosen.trusted_cidrs[: _TRUSTED_MAX + 1]]
    settings.host_pool, settings.vip_pool = str(host_pool), str(vip_pool)
    settings.trusted_cidrs.extend(str(network) for network in trusted)
    _check_numbers(settings, host_pool)
    for (what, one), (other_what, other) in combinations([("host pool", host_pool), ("VIP pool", vip_pool)], 2):
        if one.overlaps(other):
            raise Refused(f"{what} {one} and {other_what} {other} overlap; choose two that do not")
    check_outside_pools(settings, host_address)
    return settings


def check_outside_pools(settings: objects.NetworkSettings, address: str) -> None:
    """Raises Refused where a host's own `address` lies in the addresses of tasks or services."""
    for what, pool in (("host pool", settings.host_pool), ("VIP pool", settings.vip_pool)):
        if ipaddress.ip_address(address) in ipaddress.ip_network(pool):
            raise Refused(
                f"the host's own address {address} lies in the {what} {pool}; choose another pool at "
                "`fairway init`, or another address for the host"
            )


def _check_numbers(settings: objects.NetworkSettings, host_pool: Network) -> None:
    if not host_pool.prefixlen < settings.host_prefix_bits <= 30:
        raise Refused(
            f"a host's block of /{settings.host_prefix_bits} cannot be cut from {host_pool}: "
            f"choose /{host_pool.prefixlen + 1} to /30"
        )
    if not 0 < settings.vxlan_id < 1 << 24:
        raise Refused(f"VXLAN id {settings.vxlan_id} is not between 1 and {(1 << 24) - 1}")
    if not 0 < settings.vxlan_port < 65_536:
        raise Refused(f"VXLAN port {settings.vxlan_port} is not between 1 and 65535")
    if settings.mtu_bytes and not _MTU_BYTES_MIN <= settings.mtu_bytes <= _MTU_BYTES_MAX:
        raise Refused(f"MTU {settings.mtu_bytes} is not between {_MTU_BYTES_MIN} and {_MTU_BYTES_MAX}; 0 finds it out")
    if len(settings.trusted_cidrs) > _TRUSTED_MAX:
        raise Refused(f"more than {_TRUSTED_MAX} trusted sources are given; use larger networks")
    if _DOMAIN.fullmatch(settings.dns_domain) is None or len(settings.dns_domain) > 200:
        raise Refused(f"{settings.dns_domain!r} is not a DNS domain, as {DNS_DOMAIN} is")


def _pool(what: str, text: str) -> Network:
    network = _cidr(what, text)
    unusable = network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified
    if unusable or network.prefixlen > 28 or network.prefixlen < 4:
        raise Refused(f"{what} {text} cannot be used: choose a private network of /4 to /28, as {HOST_POOL}")
    return network


def _cidr(what: str, text: str) -> Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Refused(f"{what} {text!r} is not an IPv4 network: {error}; write it as {HOST_POOL}") from error
