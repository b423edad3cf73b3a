"""What a host's kernel holds: counts of links, addresses, routes, rules of nftables, connections, control groups."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lab import cgroups
from lab.layout import CLUSTER_POOLS
from net.namespaces import within_namespace
from net.netlink import PROTOCOL_NETFILTER, Netlink, Request, attribute_map
from net.route_messages import unpack_address

# One shell for all of it: entering the host's namespaces costs more than the commands.
COMMANDS = {
    "links": "ip -j -d link",
    "addresses": "ip -j address",
    "routes": "ip -j -4 route show table all",
    "routes IPv6": "ip -j -6 route show table all",
    "neighbours": "ip -j neighbour show nud permanent",
    "FDB": "bridge -j fdb show",
    "rules": "ip -j -4 rule",
    "rules IPv6": "ip -j -6 rule",
    "nftables": "nft -j list ruleset",
}
GONE_ELEMENTS = "nftables elements: tasks that are gone"
LASTING_SECONDS_MIN = 301  # the kernel keeps only an established connection longer than that without a packet
_LIST_CONNECTIONS = (1 << 8) | 1
_FAMILY_HEADER = struct.Struct(">BBH")
# include/uapi/linux/netfilter/nfnetlink_conntrack.h
_ORIGINAL, _REPLY, _TIMEOUT, _ZONE = 1, 2, 7, 18
_IP, _IPV4_SOURCE, _IPV4_TARGET = 1, 1, 2
_HOST_POOL = ipaddress.IPv4Network(CLUSTER_POOLS[0])
_VIP_POOL = ipaddress.IPv4Network(CLUSTER_POOLS[1])


def counted(outputs: dict[str, str]) -> dict[str, int]:
    """From the outputs of COMMANDS, by their names."""
    parsed = {name: json.loads(outputs.get(name) or "[]") for name in COMMANDS}
    found: Counter[str] = Counter()
    for link in parsed["links"]:
        found[f"links of kind {link.get('linkinfo', {}).get('info_kind', 'plain')}"] += 1
    for link in parsed["addresses"]:
        found["addresses"] += len(link["addr_info"])
    for name in ("routes", "routes IPv6", "neighbours", "FDB", "rules", "rules IPv6"):
        found[name] = len(parsed[name])
    if parsed["nftables"]:
        found += _nftables(parsed["nftables"]["nftables"])
    return dict(found)


def _nftables(listed: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in listed:
        for kind, value in entry.items():
            if kind != "metainfo":
                found[f"nftables {kind}s"] += 1
            if kind in ("set", "map"):
                which = GONE_ELEMENTS if value["name"] == "gone" else "nftables elements"
                found[which] += len(value.get("elem", ()))
    return found


def connections(network: Path, present: Collection[str]) -> dict[str, int]:
    """Of the namespace at `network`, those that name an address of the hosts' pool which is not in `present`."""

    def read() -> list[bytes]:
        request = Request(_LIST_CONNECTIONS, 0, _FAMILY_HEADER.pack(socket.AF_INET, 0, 0), "list connections")
        with Netlink(PROTOCOL_NETFILTER) as netlink:
            return [answer.body for answer in netlink.dump(request)]

    found = Counter({"connections answered by nobody": 0, "lasting connections of nobody": 0, "connection zones": 0})
    zones = set()
    for body in within_namespace(network, read):
        attributes = attribute_map(body, 4)
        zones.add(attributes.get(_ZONE))
        original, reply = (_ends(attributes[direction]) for direction in (_ORIGINAL, _REPLY))
        strangers = {each for each in (*original, *reply) if _is_tasks(each) and each not in present}
        if not strangers:
            continue
        found["connections answered by nobody"] += reply[0] in strangers
        seconds = struct.unpack(">I", attributes[_TIMEOUT])[0] if _TIMEOUT in attributes else 0
        found["lasting connections of nobody"] += seconds >= LASTING_SECONDS_MIN
    found["connection zones"] = len(zones - {None})
    return dict(found)


def _ends(tuple_: bytes) -> tuple[str, str]:
    ip = attribute_map(attribute_map(tuple_)[_IP])
    return unpack_address(ip[_IPV4_SOURCE]), unpack_address(ip[_IPV4_TARGET])


def _is_tasks(address: str) -> bool:
    parsed = ipaddress.IPv4Address(address)
    return parsed in _HOST_POOL and parsed not in _VIP_POOL


def control_groups(parent: str) -> dict[str, int]:
    """Folders below a host's own, and processes in them (of one hierarchy)."""
    found: Counter[str] = Counter()
    roots = cgroups.hierarchies()
    one = next((root for root in roots if root.name == "memory"), roots[0])
    for root in roots:
        for folder, _, _ in os.walk(root / parent.lstrip("/")):
            found["control groups"] += 1
            if root == one:
                found["processes"] += len(Path(folder, "cgroup.procs").read_text().split())
    return dict(found)
