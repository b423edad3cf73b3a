"""Packet filters of other programs on this host that can drop what Fairway carries; read, never changed.

Formats: the kernel's `include/uapi/linux/netfilter/nf_tables.h`. What iptables-nft writes is seen here too; the older
iptables keeps its tables elsewhere, and only their names can be had cheaply.
"""

from __future__ import annotations

import struct
from pathlib import Path

from net.netlink import PROTOCOL_NETFILTER, Netlink, Request, attribute_map, attributes
from net.pyroute2_messages import NFNL_SUBSYS_NFTABLES

OURS_PREFIX = "fairway_"
FILTERS_MAX = 20
_GET_CHAIN, _GET_RULE = (NFNL_SUBSYS_NFTABLES << 8) | 4, (NFNL_SUBSYS_NFTABLES << 8) | 7
_HEADER = struct.Struct(">BBH")
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_DROP = 0
_LEGACY = (Path("/proc/net/ip_tables_names"), Path("/proc/net/ip6_tables_names"))


def other_filters() -> list[str]:
    """Those that have a policy or a rule that drops or refuses, in words; at most FILTERS_MAX."""
    with Netlink(PROTOCOL_NETFILTER) as netlink:
        dropping = _dropping_chains(netlink)
        found = []
        header = _HEADER.pack(0, 0, 0)
        for answer in netlink.dump(Request(_GET_CHAIN, 0, header, "list chains")):
            chain = attribute_map(answer.body, 4)
            family, table, name = answer.body[0], _text(chain[1]), _text(chain[3])
            if table.startswith(OURS_PREFIX):
                continue
            policy = struct.unpack(">I", chain[5])[0] if 5 in chain else None
            if policy == _DROP and 4 in chain:
                found.append(f"table {_FAMILIES.get(family, family)} {table}, chain {name} (policy drop)")
            elif (family, table, name) in dropping:
                found.append(f"table {_FAMILIES.get(family, family)} {table}, chain {name} (has rules that drop)")
    found += [f"iptables-legacy, table {each}" for each in _legacy()]
    return found[:FILTERS_MAX]


def _dropping_chains(netlink: Netlink) -> set[tuple[int, str, str]]:
    found = set()
    for answer in netlink.dump(Request(_GET_RULE, 0, _HEADER.pack(0, 0, 0), "list rules")):
        rule = attribute_map(answer.body, 4)
        table, chain = _text(rule[1]), _text(rule[2])
        if not table.startswith(OURS_PREFIX) and any(_drops(each) for _, each in attributes(rule.get(4, b""))):
            found.add((answer.body[0], table, chain))
    return found


def _drops(expression: bytes) -> bool:
    """Whether an expression is `reject`, or sets the verdict to drop."""
    found = attribute_map(expression)
    name = _text(found.get(1, b""))
    if name == "reject":
        return True
    if name != "immediate":
        return False
    data = attribute_map(attribute_map(found.get(2, b"")).get(2, b""))
    verdict = attribute_map(data.get(2, b""))
    return 1 in verdict and struct.unpack(">I", verdict[1])[0] == _DROP


def _legacy() -> list[str]:
    names: set[str] = set()
    for path in _LEGACY:
        try:
            names.update(path.read_text().split())
        except OSError:
            continue
    return sorted(names)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
