"""Routing rules of ours: written by pyroute2's class, read by hand, since every check lists one per host."""

from __future__ import annotations

import socket
from typing import NamedTuple

from net.netlink import CREATE, EXCLUSIVE, Answer, Request, attribute_map
from net.pyroute2_messages import encode, fibmsg, rtnl, rules
from net.route_messages import PROTOCOL

LOOKUP: int = rules.FR_ACT_TO_TBL
GOTO: int = rules.FR_ACT_GOTO
NOP: int = rules.FR_ACT_NOP

_TABLE_COMPAT = 252  # what the header's byte says of a table that does not fit into it
_HEADER_BYTES = 12
_WORDS: dict[int, str] = {socket.AF_INET: "routing", socket.AF_INET6: "IPv6 routing"}
_NUMBERS = {name: number for number, name, _ in fibmsg.nla_map}


class Rule(NamedTuple):
    """A routing rule of ours; `table` 0 where it is not a look-up, `target` 0 where it is not a goto. The two
    families have rules of their own."""

    preference: int
    mark: int
    mask: int
    action: int
    table: int
    target: int
    family: int = socket.AF_INET


def _body(item: Rule) -> bytes:
    pairs = [("FRA_PRIORITY", item.preference), ("FRA_PROTOCOL", PROTOCOL)]
    if item.mask:
        pairs += [("FRA_FWMARK", item.mark), ("FRA_FWMASK", item.mask)]
    if item.table:
        pairs.append(("FRA_TABLE", item.table))
    if item.target:
        pairs.append(("FRA_GOTO", item.target))
    return encode(fibmsg, pairs, family=item.family, table=min(item.table, _TABLE_COMPAT), action=item.action)


def new_rule(item: Rule) -> Request:
    asked = f"add {_WORDS[item.family]} rule {item.preference} for mark {item.mark:#x}"
    return Request(rtnl.RTM_NEWRULE, CREATE | EXCLUSIVE, _body(item), asked)


def delete_rule(item: Rule) -> Request:
    asked = f"remove {_WORDS[item.family]} rule {item.preference} for mark {item.mark:#x}"
    return Request(rtnl.RTM_DELRULE, 0, _body(item), asked)


def list_rules(family: socket.AddressFamily) -> Request:
    return Request(rtnl.RTM_GETRULE, 0, encode(fibmsg, family=family), "list routing rules")


def read_rule(answer: Answer) -> Rule | None:
    """None for a rule that is not ours."""
    family, table, action = answer.body[0], answer.body[4], answer.body[7]
    found = attribute_map(answer.body, _HEADER_BYTES)
    if family not in (socket.AF_INET, socket.AF_INET6) or found.get(_NUMBERS["FRA_PROTOCOL"]) != bytes([PROTOCOL]):
        return None

    def number(name: str) -> int:
        return int.from_bytes(found.get(_NUMBERS[name], b""), "little")

    table = number("FRA_TABLE") or table
    return Rule(
        number("FRA_PRIORITY"),
        number("FRA_FWMARK"),
        number("FRA_FWMASK"),
        action,
        table if action == LOOKUP else 0,
        number("FRA_GOTO"),
        family,
    )
