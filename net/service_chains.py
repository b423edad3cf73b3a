"""Chains that depend on services and networks: those that draw a backend, and those that let members in; pure."""

from __future__ import annotations

from functools import lru_cache

from net import nft_expressions as nft
from net.balance_plan import Draw
from net.chains_plan import at_suffix, port_key, rule
from net.nft_family import Family
from net.route_messages import pack_address
from net.ruleset import Chain, Rule
from net.slots_plan import HASH, TURN


@lru_cache(maxsize=8192)
def balance_chain(draw: Draw, families: tuple[Family, ...]) -> Chain:
    """Draws one of a service's slots and sends the connection to its backend.

    Chains of one service know its VIP, so that what leads to them need not change with the number of slots.
    """
    of_vip = draw.what == "vip"
    rules = (_to_slot(draw, family) if of_vip else _to_slot_and_port(draw, family) for family in families)
    return Chain(tuple(each for each in rules if each is not None))


def _to_slot(draw: Draw, family: Family) -> Rule:
    expressions = family.last_destination(nft.WORD_0) + _number(draw, family)
    return rule(f"one of {draw.count} slots", family.only(), expressions, family.balanced(nft.FIRST))


def _to_slot_and_port(draw: Draw, family: Family) -> Rule | None:
    """None where the port is published at an address of the other family."""
    at = draw.what.removeprefix("published")
    if at and at != at_suffix(family):
        return None
    key, _ = port_key(family, at=bool(at))
    return rule(
        f"one of {draw.count} slots of {draw.vip} and its port",
        family.only(),
        key,
        nft.lookup(f"published_targets{at}", nft.FIRST, nft.SECOND),
        nft.load(pack_address(draw.vip), nft.WORD_0),
        _number(draw, family),
        family.balanced(nft.FIRST, nft.SECOND),
    )


def _number(draw: Draw, family: Family) -> bytes:
    """Loads a slot's number behind the VIP."""
    if draw.kind == TURN:
        return nft.next_number(draw.count, nft.WORD_1)
    if draw.kind == HASH:
        return family.hashed_source(draw.count, nft.WORD_1)
    return nft.random_number(draw.count, nft.WORD_1)


def group_chains(name: str, families: tuple[Family, ...], open_to: dict[int, tuple[int, ...]]) -> dict[str, Chain]:
    """Let in what shares a network with the destination; everyone else is a stranger.

    `open_to`: the number of a family -> the ordinals of the networks whose members reach each other by it.
    """
    chains = {}
    for family in families:
        rules = []
        if not family.is_ipv6 and len(families) > 1:
            ipv6 = families[1]
            rules.append(rule("IPv6", ipv6.only(), nft.verdict(nft.GOTO, name + ipv6.suffix)))
        rules += [
            rule(
                f"members of network {ordinal}",
                family.our_source(),
                nft.lookup(f"net_{ordinal}"),
                nft.verdict(nft.ACCEPT),
            )
            for ordinal in open_to[family.number]
        ]
        rules.append(rule("not a member", nft.verdict(nft.GOTO, f"stranger{family.suffix}")))
        chains[name + family.suffix] = Chain(tuple(rules))
    return chains
