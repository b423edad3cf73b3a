"""The cluster's addresses: defaults, and what is wrong with those that a person chose. Pure."""

from __future__ import annotations

import hashlib
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
NO_IPV6 = "none"
_IPV6_PREFIX_BITS = 96  # and then the 32 bits of an IPv4 address
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

INNER_POOL = "198.18.0.0/16"  # net/wireguard_plan.py; encryption may be turned on later

Network = ipaddress.IPv4Network


def complete(chosen: objects.NetworkSettings, host_address: str, cluster_id: str) -> objects.NetworkSettings:
    """`chosen` with defaults for its empty fields; an IPv6 prefix "none" becomes an empty one. Raises Refused where
    they cannot work together, or not with the host at `host_address`."""
    settings = objects.NetworkSettings(
        host_pool=chosen.host_pool or HOST_POOL,
        host_prefix_bits=chosen.host_prefix_bits or HOST_PREFIX_BITS,
        vip_pool=chosen.vip_pool or VIP_POOL,
        vxlan_id=chosen.vxlan_id or VXLAN_ID,
        vxlan_port=chosen.vxlan_port or VXLAN_PORT,
        mtu_bytes=chosen.mtu_bytes,
        dns_domain=(chosen.dns_domain or DNS_DOMAIN).lower().rstrip("."),
        encryption=chosen.encryption,
        key_age_ms_max=chosen.key_age_ms_max,
        wireguard_port=chosen.wireguard_port,
        ipv6_prefix=_ipv6_prefix(chosen.ipv6_prefix or unique_local_prefix(cluster_id)),
    )
    host_pool = _pool("host pool", settings.host_pool)
    vip_pool = _pool("VIP pool", settings.vip_pool)
    trusted = [_trusted(text) for text in chosen.trusted_cidrs[: _TRUSTED_MAX + 1]]
    settings.host_pool, settings.vip_pool = str(host_pool), str(vip_pool)
    settings.trusted_cidrs.extend(str(network) for network in trusted)
    _check_numbers(settings, host_pool)
    for (what, one), (other_what, other) in combinations(
        [("host pool", host_pool), ("VIP pool", vip_pool), ("the pool of WireGuard's devices", Network(INNER_POOL))], 2
    ):
        if one.overlaps(other):
            raise Refused(f"{what} {one} and {other_what} {other} overlap; choose two that do not")
    check_outside_pools(settings, host_address)
    return settings


def unique_local_prefix(cluster_id: str) -> str:
    """The cluster's own /96 where nobody chose one: a unique local /48 (RFC 4193, section 3.2: fd and 40 bits that
    two clusters hardly share), then zeros."""
    number = 0xFD << 120 | int.from_bytes(hashlib.sha256(b"fairway ipv6 " + cluster_id.encode()).digest()[:5]) << 80
    return f"{ipaddress.IPv6Address(number)}/{_IPV6_PREFIX_BITS}"


def check_outside_pools(settings: objects.NetworkSettings, address: str) -> None:
    """Raises Refused where a host's own `address` lies in the addresses of tasks or services."""
    pools = (("host pool", settings.host_pool), ("VIP pool", settings.vip_pool), ("IPv6 prefix", settings.ipv6_prefix))
    for what, pool in pools:
        if pool and ipaddress.ip_address(address) in ipaddress.ip_network(pool):
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


def _ipv6_prefix(text: str) -> str:
    """A /96 in its short form, "" for "none"."""
    if text.lower() == NO_IPV6:
        return ""
    hint = f"write a /{_IPV6_PREFIX_BITS} as {unique_local_prefix('')}, or {NO_IPV6} for a cluster without IPv6"
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError as error:
        raise Refused(f"IPv6 prefix {text!r} is not an IPv6 network: {error}; {hint}") from error
    if network.prefixlen != _IPV6_PREFIX_BITS:
        raise Refused(f"IPv6 prefix {text} has {network.prefixlen} bits; an IPv4 address comes behind it: {hint}")
    if not (network.is_private or network.is_global) or network.is_multicast or network.is_link_local:
        raise Refused(f"IPv6 prefix {text} cannot be used for tasks; {hint}")
    if network.overlaps(ipaddress.IPv6Network("::/8")):  # mapped, compatible and translated IPv4, loopback
        raise Refused(f"IPv6 prefix {text} is reserved; {hint}")
    return str(network)


def _trusted(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Refused(f"trusted source {text!r} is not a network: {error}; write it as {HOST_POOL}") from error


def _cidr(what: str, text: str) -> Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise Refused(f"{what} {text!r} is not an IPv4 network: {error}; write it as {HOST_POOL}") from error
