"""Collects what changes in the desired nftables table, while it changes it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from net.ruleset import TYPE_ADDRESS, Chain, Data, Ruleset, RulesetChange, SetShape, changed_elements

ADDRESSES = SetShape(TYPE_ADDRESS, 4)
ElementsOfSets = Mapping[tuple[str, bytes], Data]


_POLICY_CHAINS = ("ingress_", "egress_", "policy_")


class Steps:
    """Collects the change while it carries it out on the desired table."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._change = RulesetChange()

    def remove_chains(self, names: Iterable[str]) -> None:
        for name in names:
            del self._ruleset.chains[name]
            self._change.emptied_chains.append(name)
            self._change.removed_chains.append(name)

    def chain(self, name: str, chain: Chain) -> None:
        present = self._ruleset.chains.get(name)
        if present == chain:
            return
        if present is None:
            self._change.new_chains[name] = chain
        self._change.rewritten_chains[name] = chain
        self._ruleset.chains[name] = chain

    def whole_set(self, name: str, wanted: dict[bytes, Data], shape: SetShape) -> None:
        if name not in self._ruleset.sets:
            self._change.new_sets[name] = shape
            self._ruleset.sets[name] = shape
        removed, added = changed_elements(self._ruleset.elements.get(name, {}), wanted)
        if removed:
            self._change.removed_elements[name] = removed
        if added:
            self._change.new_elements[name] = added
        self._ruleset.elements[name] = wanted

    def elements(self, removed: ElementsOfSets, added: ElementsOfSets) -> None:
        for (name, key), data in removed.items():
            self._ruleset.elements[name].pop(key, None)
            self._change.removed_elements.setdefault(name, {})[key] = data
        for (name, key), data in added.items():
            self._ruleset.elements[name][key] = data
            self._change.new_elements.setdefault(name, {})[key] = data

    def keep_only(self, groups: set[str], network_sets: set[str]) -> None:
        self.remove_chains([each for each in self._ruleset.chains if each.startswith("group_") and each not in groups])
        for name in [each for each in self._ruleset.sets if each.startswith("net_")]:
            if name not in network_sets:
                del self._ruleset.sets[name]
                self._ruleset.elements.pop(name, None)
                self._change.removed_sets.append(name)
        # A new group's rules name sets that must exist before them, members or not.
        for name in network_sets:
            if name not in self._ruleset.sets:
                self.whole_set(name, {}, ADDRESSES)

    def keep_policy_parts(self, chains: Collection[str], sets: set[str], counters: set[str]) -> None:
        """Removes those chains, sets and counters of policies that are not among these; makes missing counters."""
        self.remove_chains(
            [each for each in self._ruleset.chains if each.startswith(_POLICY_CHAINS) and each not in chains]
        )
        for name in [each for each in self._ruleset.sets if each.startswith("peers_") and each not in sets]:
            del self._ruleset.sets[name]
            self._ruleset.elements.pop(name, None)
            self._change.removed_elements.pop(name, None)
            self._change.removed_sets.append(name)
        self._change.removed_counters += sorted(self._ruleset.counters - counters)
        self._change.new_counters += sorted(counters - self._ruleset.counters)
        self._ruleset.counters = set(counters)

    def fixed_set(self, name: str, wanted: dict[bytes, Data]) -> None:
        """All elements of a set that is always there."""
        self.whole_set(name, wanted, self._ruleset.sets[name])

    def new_set(self, name: str) -> None:
        """An empty set of addresses, where there is none of that name."""
        if name not in self._ruleset.sets:
            self.whole_set(name, {}, ADDRESSES)

    def finish(self) -> RulesetChange:
        return self._change
