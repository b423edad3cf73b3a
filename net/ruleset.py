"""An nftables table as a value, and the difference between two of them; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from net.pyroute2_messages import nft

# What an element holds beside its key: nothing (a set), bytes (a map), a chain to go to (a verdict map).
Data: TypeAlias = bytes | str | None
Elements: TypeAlias = Mapping[bytes, Data]

# nftables' numbers of the fields that keys and data consist of.
TYPE_ADDRESS: int = nft.DATA_TYPE_IPADDR
TYPE_ADDRESS_IPV6: int = nft.DATA_TYPE_IP6ADDR
TYPE_MAC: int = nft.DATA_TYPE_ETHERADDR
TYPE_PROTOCOL: int = nft.DATA_TYPE_INET_PROTOCOL
TYPE_PORT: int = nft.DATA_TYPE_INET_SERVICE
TYPE_MARK: int = nft.DATA_TYPE_MARK
VERDICT_TYPE = 0xFFFFFF00  # what a verdict map's elements hold (NFT_DATA_VERDICT)


def concatenation(*types: int) -> int:
    """nftables' number for a key of several fields: six bits a field."""
    number = 0
    for each in types:
        number = (number << 6) | each
    return number


@dataclass(frozen=True)
class SetShape:
    """Lengths are in bytes; each field of a concatenation takes a multiple of 4."""

    key_type: int
    key_bytes: int
    data_type: int = 0
    data_bytes: int = 0
    goes_to_chains: bool = False

    @property
    def is_map(self) -> bool:
        return self.goes_to_chains or bool(self.data_bytes)


@dataclass(frozen=True)
class Hook:
    kind: str  # "filter" or "nat"
    number: int
    priority: int


PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)


@dataclass(frozen=True)
class Rule:
    comment: str
    expressions: bytes

    @cached_property
    def tagged_comment(self) -> str:
        """The comment and a digest of the rule, by which a dump is compared without decoding it."""
        digest = hashlib.sha256(self.expressions).hexdigest()[:8]
        return f"{self.comment} [{digest}]"


@dataclass(frozen=True)
class Chain:
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass
class Ruleset:
    """The whole table. Elements of a set are replaced, never mutated, by who changes them."""

    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, SetShape] = field(default_factory=dict)
    elements: dict[str, dict[bytes, Data]] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)  # by name; rules refer to them


@dataclass(frozen=True)
class ObservedRuleset:
    """What a dump of the table tells; an absent table is an empty one."""

    rules: Mapping[str, tuple[str, ...]]  # chain -> tagged comments
    elements: Mapping[str, Elements]  # set -> elements
    counters: frozenset[str] = frozenset()
    shapes: Mapping[str, SetShape] = field(default_factory=dict)  # of sets, where they are known
    hooks: Mapping[str, Hook | None] = field(default_factory=dict)  # of chains, where they are known


@dataclass
class RulesetChange:
    """Steps from one table to another, carried out in the order of the fields, all or nothing."""

    anew: list[str] = field(default_factory=list)  # why the present table is removed first, in words; empty: it is not
    new_sets: dict[str, SetShape] = field(default_factory=dict)
    new_counters: list[str] = field(default_factory=list)
    new_chains: dict[str, Chain] = field(default_factory=dict)
    removed_elements: dict[str, dict[bytes, Data]] = field(default_factory=dict)
    new_elements: dict[str, dict[bytes, Data]] = field(default_factory=dict)
    rewritten_chains: dict[str, Chain] = field(default_factory=dict)
    emptied_chains: list[str] = field(default_factory=list)  # that go away: emptied before their sets
    removed_sets: list[str] = field(default_factory=list)  # before the chains that their elements go to
    removed_chains: list[str] = field(default_factory=list)
    removed_counters: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def describe(self) -> list[str]:
        """In words, for the log."""
        if self.anew:
            return [f"{reason}: the table is made anew" for reason in self.anew]
        words = []
        for verb, names in (("missing set", self.new_sets), ("missing chain", self.new_chains)):
            words += [f"{verb} {name}" for name in names]
        words += [f"{len(items)} surplus elements in {name}" for name, items in self.removed_elements.items()]
        words += [f"{len(items)} missing elements in {name}" for name, items in self.new_elements.items()]
        words += [f"other rules in chain {name}" for name in self.rewritten_chains]
        words += [f"surplus chain {name}" for name in self.removed_chains]
        words += [f"surplus set {name}" for name in self.removed_sets]
        words += [f"missing counter {name}" for name in self.new_counters]
        words += [f"surplus counter {name}" for name in self.removed_counters]
        return words


def changed_elements(old: Elements, new: Elements) -> tuple[dict[bytes, Data], dict[bytes, Data]]:
    """(to remove, to add); an element whose data changed is in both."""
    missing = object()
    removed = {key: data for key, data in old.items() if new.get(key, missing) != data}
    added = {key: data for key, data in new.items() if old.get(key, missing) != data}
    return removed, added


def repair(observed: ObservedRuleset, desired: Ruleset) -> RulesetChange:
    """What brings a dumped table to the desired one.

    The kernel changes neither the shape of a set nor the hook of a chain; where another build of fairwayd, or
    somebody by hand, has left a different one, the table is made anew, in the same transaction.
    """
    different = [
        f"{kind} {name} is another one"
        for kind, known, wanted in (
            ("set", observed.shapes, desired.sets),
            ("chain", observed.hooks, {name: chain.hook for name, chain in desired.chains.items()}),
        )
        for name, value in wanted.items()
        if known.get(name, value) != value
    ]
    if different:
        change = repair(ObservedRuleset({}, {}), desired)
        change.anew = different
        return change
    change = RulesetChange()
    for name, shape in desired.sets.items():
        if name not in observed.elements:
            change.new_sets[name] = shape
        removed, added = changed_elements(observed.elements.get(name, {}), desired.elements.get(name, {}))
        if removed:
            change.removed_elements[name] = removed
        if added:
            change.new_elements[name] = added
    for name, chain in desired.chains.items():
        if name not in observed.rules:
            change.new_chains[name] = chain
        wanted = tuple(rule.tagged_comment for rule in chain.rules)
        if observed.rules.get(name, ()) != wanted:
            change.rewritten_chains[name] = chain
    change.removed_chains = [name for name in observed.rules if name not in desired.chains]
    change.emptied_chains = list(change.removed_chains)
    change.removed_sets = [name for name in observed.elements if name not in desired.sets]
    change.new_counters = sorted(desired.counters - observed.counters)
    change.removed_counters = sorted(observed.counters - desired.counters)
    return change
