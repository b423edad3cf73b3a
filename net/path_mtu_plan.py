"""How large the packets may be that a path between two hosts carries: what is tried, and what follows; pure.

Sizes are of whole IP packets on the underlay. A path is whole while the largest packet that the overlay makes gets
through. One that takes small packets and swallows large ones is searched in sections; until it is whole again it is
looked at in every round, and searched anew now and then, since it may have grown a little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from net.model import DesiredNetwork, Host
from net.overlay_plan import TUNNEL_OVERHEAD_BYTES, TUNNEL_OVERHEAD_IPV6_BYTES
from net.wireguard_plan import overhead_bytes

ROUND_SECONDS = 2.0
HOSTS_A_ROUND_MAX = 8
REDUCED_A_ROUND_MAX = 8
SEARCH_AGAIN_SECONDS = 30.0
COPIES = 3  # of a size that are sent before it counts as swallowed
SECTIONS = 8  # a search of three steps finds a size among 512
PROBE_SECONDS_MAX = 0.5
SEARCH_PROBE_SECONDS_MIN, SEARCH_PROBE_ROUND_TRIPS = 0.1, 10

# What every path carries (RFC 791: 576 for a host to take; RFC 8200: 1280).
PACKET_BYTES_MIN, PACKET_BYTES_IPV6_MIN = 576, 1280
_WIREGUARD_BLOCK_BYTES = 16  # a packet is filled up to a multiple of it


@dataclass(frozen=True, slots=True)
class Reduced:
    """A path that is not whole."""

    packet_bytes: int  # the largest that got through
    searched_at_seconds: float


def sample(others: Sequence[Host], round_number: int, reduced: Collection[str]) -> list[Host]:
    """Whom to look at in a round: the next ones in the rotation, and those (node ids) whose path is reduced."""
    count = min(HOSTS_A_ROUND_MAX, len(others))
    chosen = [others[(round_number * count + index) % len(others)] for index in range(count)] if count else []
    known = {host.node_id for host in chosen}
    again = [host for host in others if host.node_id in reduced and host.node_id not in known]
    if len(again) > REDUCED_A_ROUND_MAX:
        first = round_number * REDUCED_A_ROUND_MAX
        again = [again[(first + index) % len(again)] for index in range(REDUCED_A_ROUND_MAX)]
    return chosen + again


def largest_bytes(desired: DesiredNetwork, overlay_mtu_bytes: int, underlay_mtu_bytes: int) -> int:
    """Of the packets that the overlay makes; what is larger than the interface takes is cut by the kernel."""
    return min(overlay_mtu_bytes + _overhead_bytes(desired), underlay_mtu_bytes)


def least_bytes(host: Host) -> int:
    return PACKET_BYTES_IPV6_MIN if ":" in host.address else PACKET_BYTES_MIN


def search_probe_seconds(rtt_seconds: float) -> float:
    """How long an answer is waited for within a search, after one took so long: a search has several steps."""
    return min(PROBE_SECONDS_MAX, max(SEARCH_PROBE_SECONDS_MIN, SEARCH_PROBE_ROUND_TRIPS * rtt_seconds))


def sections(through_bytes: int, swallowed_bytes: int) -> list[int]:
    """The sizes to try next, ascending, between one that gets through and one that does not; empty: it is found."""
    width = swallowed_bytes - through_bytes
    if width <= 1:
        return []
    return sorted({through_bytes + max(1, width * part // SECTIONS) for part in range(1, SECTIONS)} - {swallowed_bytes})


def narrowed(
    tried: Sequence[int], answered: Collection[int], through_bytes: int, swallowed_bytes: int
) -> tuple[int, int]:
    """(gets through, is swallowed) after `tried` of which `answered` were answered."""
    through = max([through_bytes, *answered])
    return through, min([swallowed_bytes, *(size for size in tried if size > through)])


def route_mtu_bytes(desired: DesiredNetwork, packet_bytes: int) -> int:
    """The MTU of the overlay's routes to a host whose path carries packets of so many bytes."""
    encryption = overhead_bytes(desired)
    inside = packet_bytes - encryption
    if encryption:
        inside -= inside % _WIREGUARD_BLOCK_BYTES
    return inside - (_overhead_bytes(desired) - encryption)


def _overhead_bytes(desired: DesiredNetwork) -> int:
    tunnel = TUNNEL_OVERHEAD_IPV6_BYTES if ":" in desired.local.address else TUNNEL_OVERHEAD_BYTES
    return tunnel + overhead_bytes(desired)
