"""The two families of addresses as nftables expressions, so that each rule is written once for both; pure.

Sets hold addresses of ours as their 32 bits, whichever family a packet is of: an IPv6 address of ours is the cluster's
/96 and those bits (`net/addresses.py`). So the rules for IPv6 compare the first 12 bytes and look up the last 4, and
IPv6 adds no elements to any set.
"""

from __future__ import annotations

from dataclasses import dataclass

from net import nft_expressions as nft
from net.addresses import ipv6_block_of, ipv6_of
from net.model import Host, NetworkConfig
from net.route_messages import pack_address

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
_PREFIX_BYTES = 12


@dataclass(frozen=True)
class Family:
    """Blocks and pools are CIDRs of the family."""

    number: int
    suffix: str  # of the names of its chains and sets
    prefix: bytes  # that begins every address of ours
    source_offset: int  # in the header, in bytes (RFC 791, RFC 8200)
    address_bytes: int
    original_destination_key: int
    host_pool: str
    vip_pool: str
    block: str  # of this host
    loopback: str
    tunnel_address: bytes
    trusted: tuple[str, ...]

    @property
    def is_ipv6(self) -> bool:
        return bool(self.prefix)

    def only(self) -> bytes:
        """Matches packets of this family. `nft` shows what comes after it as `ip saddr` and not as bytes of a header,
        hence it stands also where nothing else comes by."""
        return nft.meta(nft.META_NFPROTO) + nft.compare(bytes([self.number]))

    def source(self, register: int = nft.FIRST) -> bytes:
        return nft.payload(register, nft.NETWORK, self.source_offset, self.address_bytes)

    def destination(self, register: int = nft.FIRST) -> bytes:
        return nft.payload(register, nft.NETWORK, self.source_offset + self.address_bytes, self.address_bytes)

    def our_source(self, register: int = nft.FIRST) -> bytes:
        """Loads the 32 bits by which sets hold the source; where they are IPv6's, matches only addresses of ours."""
        return self._ours(self.source_offset, register)

    def our_destination(self, register: int = nft.FIRST) -> bytes:
        return self._ours(self.source_offset + self.address_bytes, register)

    def of_ours(self) -> bytes:
        """Matches where source and destination both begin as addresses of ours."""
        return self.only() + self._begins(self.source_offset) + self._begins(self.source_offset + self.address_bytes)

    def last_source(self, register: int) -> bytes:
        """The last 32 bits of the source, whoever's it is."""
        return self._last(self.source_offset, register)

    def last_destination(self, register: int) -> bytes:
        return self._last(self.source_offset + self.address_bytes, register)

    def to(self, address: str) -> bytes:
        return self.only() + self.destination() + nft.compare(pack_address(address))

    def to_pool(self, cidr: str, *, outside: bool = False) -> bytes:
        return self.only() + self.destination() + nft.within(cidr, outside=outside)

    def from_pool(self, cidr: str, *, outside: bool = False) -> bytes:
        return self.only() + self.source() + nft.within(cidr, outside=outside)

    def original_destination(self) -> bytes:
        """Loads the address that a connection asked for before it was redirected."""
        return nft.of_original(self.original_destination_key)

    def balanced(self, key_register: int, port_register: int | None = None) -> bytes:
        """Redirects to the backend that `backends` has for a VIP and a slot from `key_register` on."""
        into = nft.FIRST if not self.is_ipv6 else nft.WORD_3
        return nft.lookup("backends", key_register, into) + self.redirect(port_register)

    def redirect(self, port_register: int | None = None) -> bytes:
        """To the address of ours whose 32 bits are in `bits_register`."""
        return self._with_prefix() + nft.destination_nat(nft.FIRST, port_register, family=self.number)

    @property
    def bits_register(self) -> int:
        """Where `redirect` expects the 32 bits of an address: behind the prefix."""
        return nft.WORD_3 if self.is_ipv6 else nft.WORD_0

    def as_tunnel(self) -> bytes:
        """Gives a connection this host's address on the overlay as its source."""
        return nft.source_nat(self.tunnel_address, family=self.number)

    def hashed_source(self, below: int, register: int) -> bytes:
        return self.source(nft.THIRD) + nft.hashed_number(below, nft.THIRD, self.address_bytes, register)

    def _ours(self, offset: int, register: int) -> bytes:
        return self.only() + self._begins(offset) + self._last(offset, register)

    def _begins(self, offset: int) -> bytes:
        if not self.is_ipv6:
            return b""
        return nft.payload(nft.FIRST, nft.NETWORK, offset, _PREFIX_BYTES) + nft.compare(self.prefix)

    def _last(self, offset: int, register: int) -> bytes:
        return nft.payload(register, nft.NETWORK, offset + self.address_bytes - 4, 4)

    def _with_prefix(self) -> bytes:
        return nft.load(self.prefix, nft.WORD_0) if self.is_ipv6 else b""


def families(config: NetworkConfig, local: Host) -> tuple[Family, ...]:
    """IPv4, and IPv6 where the cluster has it."""
    ipv4 = Family(
        number=NFPROTO_IPV4,
        suffix="",
        prefix=b"",
        source_offset=12,
        address_bytes=4,
        original_destination_key=nft.CT_DESTINATION_IP,
        host_pool=config.host_pool,
        vip_pool=config.vip_pool,
        block=local.block,
        loopback="127.0.0.0/8",
        tunnel_address=pack_address(local.tunnel_address),
        trusted=tuple(cidr for cidr in config.trusted_cidrs if ":" not in cidr),
    )
    if not config.ipv6_prefix:
        return (ipv4,)
    ipv6 = Family(
        number=NFPROTO_IPV6,
        suffix="_ipv6",
        prefix=pack_address(config.ipv6_prefix.split("/")[0])[:_PREFIX_BYTES],
        source_offset=8,
        address_bytes=16,
        original_destination_key=nft.CT_DESTINATION_IPV6,
        host_pool=ipv6_block_of(config.ipv6_prefix, config.host_pool),
        vip_pool=ipv6_block_of(config.ipv6_prefix, config.vip_pool),
        block=ipv6_block_of(config.ipv6_prefix, local.block),
        loopback="::1/128",
        tunnel_address=pack_address(ipv6_of(config.ipv6_prefix, local.tunnel_address)),
        trusted=tuple(cidr for cidr in config.trusted_cidrs if ":" in cidr),
    )
    return (ipv4, ipv6)
