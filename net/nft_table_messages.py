"""nftables tables, chains and sets, made and removed by pyroute2's classes: some tens of messages at most."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from net.netlink import CREATE, Request
from net.pyroute2_messages import NFNL_SUBSYS_NFTABLES, attributes, encode, nft
from net.ruleset import VERDICT_TYPE, Chain, SetShape

_SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
_ACCEPT = 1


def _request(kind: int, flags: int, of: type[Any], pairs: list[tuple[str, Any]], asked: str) -> Request:
    return Request(_SUBSYSTEM | kind, flags, encode(of, pairs, nfgen_family=nft.NFPROTO_INET), asked)


@lru_cache(maxsize=8)
def new_table(table: str) -> Request:
    """Part of every transaction, hence remembered."""
    pairs = [("NFTA_TABLE_NAME", table)]
    return _request(nft.NFT_MSG_NEWTABLE, CREATE, nft.nft_table_msg, pairs, f"make nftables table inet {table}")


def delete_table(table: str) -> Request:
    pairs = [("NFTA_TABLE_NAME", table)]
    return _request(nft.NFT_MSG_DELTABLE, 0, nft.nft_table_msg, pairs, f"remove nftables table inet {table}")


def new_chain(table: str, name: str, chain: Chain) -> Request:
    """A chain without its rules; one with a hook accepts what its rules do not decide."""
    pairs: list[tuple[str, Any]] = [("NFTA_CHAIN_TABLE", table), ("NFTA_CHAIN_NAME", name)]
    if chain.hook is not None:
        hook = chain.hook
        place = attributes(("NFTA_HOOK_HOOKNUM", hook.number), ("NFTA_HOOK_PRIORITY", hook.priority))
        pairs += [("NFTA_CHAIN_HOOK", place), ("NFTA_CHAIN_TYPE", hook.kind), ("NFTA_CHAIN_POLICY", _ACCEPT)]
    return _request(nft.NFT_MSG_NEWCHAIN, CREATE, nft.nft_chain_msg, pairs, f"make nftables chain {name}")


def delete_chain(table: str, name: str) -> Request:
    pairs = [("NFTA_CHAIN_TABLE", table), ("NFTA_CHAIN_NAME", name)]
    return _request(nft.NFT_MSG_DELCHAIN, 0, nft.nft_chain_msg, pairs, f"remove nftables chain {name}")


def new_set(table: str, name: str, shape: SetShape, identifier: int) -> Request:
    """A set, map or verdict map; `identifier` is its own among the sets of one transaction."""
    pairs: list[tuple[str, Any]] = [
        ("NFTA_SET_TABLE", table),
        ("NFTA_SET_NAME", name),
        ("NFTA_SET_FLAGS", {"NFT_SET_MAP"} if shape.is_map else set()),
        ("NFTA_SET_KEY_TYPE", shape.key_type),
        ("NFTA_SET_KEY_LEN", shape.key_bytes),
    ]
    if shape.goes_to_chains:
        pairs.append(("NFTA_SET_DATA_TYPE", VERDICT_TYPE))
    elif shape.is_map:
        pairs += [("NFTA_SET_DATA_TYPE", shape.data_type), ("NFTA_SET_DATA_LEN", shape.data_bytes)]
    pairs.append(("NFTA_SET_ID", identifier))
    return _request(nft.NFT_MSG_NEWSET, CREATE, nft.nft_set_msg, pairs, f"make nftables set {name}")


def delete_set(table: str, name: str) -> Request:
    pairs = [("NFTA_SET_TABLE", table), ("NFTA_SET_NAME", name)]
    return _request(nft.NFT_MSG_DELSET, 0, nft.nft_set_msg, pairs, f"remove nftables set {name}")
