"""The chain that keeps the clear out of a cluster that encrypts; pure."""

from __future__ import annotations

import struct

from net import nft_expressions as nft
from net.model import NetworkConfig
from net.ruleset import INPUT, Chain, Hook, Rule
from net.wireguard_plan import accepts_clear

CHAIN = "encrypted_only"
_UDP = b"\x11"
_VXLAN_ID_OFFSET = 8 + 4  # after the UDP header and VXLAN's flags (RFC 7348, section 5)
_BEFORE_FILTER = -10


def encrypted_only(config: NetworkConfig, wireguard: str) -> Chain:
    """Drops VXLAN packets that came in by anything but WireGuard; empty while the clear is taken too.

    `wireguard` is the pattern of the devices' names. WireGuard itself lets a peer send from its one address only.
    """
    rules: tuple[Rule, ...] = ()
    if not accepts_clear(config.encryption):
        match = (
            nft.meta(nft.META_L4PROTO)
            + nft.compare(_UDP)
            + nft.destination_port(nft.FIRST)
            + nft.compare(struct.pack(">H", config.vxlan_port))
            + nft.payload(nft.FIRST, nft.TRANSPORT, _VXLAN_ID_OFFSET, 3)  # others may use the port as well
            + nft.compare(config.vxlan_id.to_bytes(3))
            + nft.from_interface(wireguard, unequal=True)
        )
        rules = (Rule("hosts send to each other encrypted only", match + nft.verdict(nft.DROP)),)
    return Chain(rules, Hook("filter", INPUT, _BEFORE_FILTER))
