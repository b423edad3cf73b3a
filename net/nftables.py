"""Our nftables table in the kernel: read it, change it, all or nothing. Other tables are never touched."""

from __future__ import annotations

from net import nft_messages as messages
from net import nft_table_messages as tables
from net.netlink import PROTOCOL_NETFILTER, Netlink, Request
from net.ruleset import Data, Hook, ObservedRuleset, RulesetChange, SetShape


def table_name(prefix: str) -> str:
    """Of the one table of the daemon whose interfaces' names begin with `prefix`."""
    return f"fairway_{prefix}"


class Nftables:
    """One table of family `inet`; not safe for several threads at once."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._netlink = Netlink(PROTOCOL_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def generation(self) -> int:
        """Changes with every nftables transaction of anyone in this network namespace; about 20 µs."""
        answer = self._netlink.get(messages.get_generation())
        return messages.read_generation(answer) if answer else 0

    def observe(self) -> ObservedRuleset:
        """Dumps the table: some 40 ms with 10,000 elements."""
        dump = self._netlink.dump
        rules: dict[str, list[str]] = {}
        hooks: dict[str, Hook | None] = {}
        for answer in dump(messages.list_chains()):
            chain = messages.read_chain(answer, self.table)
            if chain is not None:
                rules[chain[0]] = []
                hooks[chain[0]] = chain[1]
        for answer in dump(messages.list_rules(self.table)):
            found = messages.read_rule(answer, self.table)
            if found is not None:
                rules.setdefault(found[0], []).append(found[1])
        elements: dict[str, dict[bytes, Data]] = {}
        shapes: dict[str, SetShape] = {}
        for answer in dump(messages.list_sets(self.table)):
            read = messages.read_set(answer, self.table)
            if read is None:
                continue
            name, shapes[name] = read
            held = elements.setdefault(name, {})
            for part in dump(messages.list_elements(self.table, name)):
                held.update(messages.read_elements(part))
        counters = frozenset(self.counts())
        return ObservedRuleset(
            {chain: tuple(found) for chain, found in rules.items()}, elements, counters, shapes, hooks
        )

    def counts(self) -> dict[str, tuple[int, int]]:
        """Counter -> (packets, bytes)."""
        listed = (
            messages.read_counter(each, self.table) for each in self._netlink.dump(messages.list_counters(self.table))
        )
        return {found[0]: found[1:] for found in listed if found is not None}

    def apply(self, change: RulesetChange) -> None:
        """Carries a change out as one transaction; raises KernelRefused and then changed nothing."""
        if change:
            self._netlink.transaction(messages.BEGIN, _requests(self.table, change), messages.END)

    def remove(self) -> None:
        """Removes the whole table, where there is one."""
        requests = [tables.new_table(self.table), tables.delete_table(self.table)]
        self._netlink.transaction(messages.BEGIN, requests, messages.END)


def _requests(table: str, change: RulesetChange) -> list[Request]:
    requests = [tables.new_table(table)]
    if change.anew:
        requests += [tables.delete_table(table), tables.new_table(table)]
    for number, (name, shape) in enumerate(change.new_sets.items(), start=1):
        requests.append(tables.new_set(table, name, shape, number))
    requests.extend(messages.new_counter(table, name) for name in change.new_counters)
    for name, chain in change.new_chains.items():
        plain = chain.hook is None
        requests.append(messages.new_plain_chain(table, name) if plain else tables.new_chain(table, name, chain))
    for name, elements in change.removed_elements.items():
        requests.extend(messages.elements(table, name, elements.items(), remove=True))
    for name, elements in change.new_elements.items():
        requests.extend(messages.elements(table, name, elements.items(), remove=False))
    for name, chain in change.rewritten_chains.items():
        if name not in change.new_chains:
            requests.append(messages.flush_chain(table, name))
        requests.extend(messages.new_rule(table, name, rule) for rule in chain.rules)
    requests.extend(messages.flush_chain(table, name) for name in change.emptied_chains)
    requests.extend(tables.delete_set(table, name) for name in change.removed_sets)
    requests.extend(tables.delete_chain(table, name) for name in change.removed_chains)
    requests.extend(messages.delete_counter(table, name) for name in change.removed_counters)
    return requests
