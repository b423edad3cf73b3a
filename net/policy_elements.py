"""Policies in the table of one host, from one desired network to the next: groups, their chains and elements; pure.

A task's address is an element: of the maps `ingress` and `egress`, which lead to its group's number, where it is on
this host (or, for `ingress`, behind a published port), and of the set of each selector that finds its service. So a
task that comes or goes is some elements, whatever the number of policies and tasks. Only the selectors of policies that
groups on this host have get a set.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from net.balance_plan import packed
from net.desired_changes import Change, DesiredIndex
from net.model import DesiredNetwork, Frontend, LocalTask, NetworkInfo
from net.nft_family import Family
from net.policy import EGRESS, INGRESS, Selector
from net.policy_chains import Group, Membership, counter_name, nft_chains, peers_set, selectors
from net.policy_plan import Policies, matches
from net.ruleset import Chain, Data
from net.ruleset_steps import Steps

_Elements = dict[tuple[str, bytes], Data]


class PolicyElements:
    """Moves on with each desired network."""

    def __init__(self) -> None:
        # Who may reach whom, since this was last set to False; not by tasks that came or went.
        self.changed = False
        self.policies = Policies(())
        # What a service was until its last task is gone, also where it is being removed and no frontend any more.
        self.frontends: dict[str, Frontend] = {}
        self._local: dict[str, list[LocalTask]] = {}  # service id -> tasks of this host
        self._groups: dict[str, dict[tuple[str, str], Group]] = {}  # service id -> (map, address) -> group
        self._elements: dict[str, _Elements] = {}  # by service id
        self._uses: Counter[Group] = Counter()  # how many tasks are in each group
        self._numbers: dict[Group, int] = {}  # of the groups in use
        self._selectors: dict[Selector, str] = {}  # of the groups in use -> their sets
        self._chains: dict[Group, dict[str, Chain]] = {}  # of the groups in use

    def advance(
        self,
        desired: DesiredNetwork,
        index: DesiredIndex,
        change: Change,
        steps: Steps,
        families: tuple[Family, ...],
        anew: bool,
    ) -> None:
        """`index` is already at `desired`; `anew`: the families are others than before."""
        touched = set(change.services)
        if change.policies:
            self.policies = Policies(desired.policies)
        if change.tasks:
            before, self._local = self._local, _by_service(desired.tasks)
            known = before.keys() | self._local.keys()
            touched.update(each for each in known if before.get(each) != self._local.get(each))
        if change.policies or change.networks or anew:
            touched |= self._known(index)
            self.changed = True
        regrouped = [self._regroup(each, index) for each in touched]
        others = anew or (any(regrouped) and self._uses.keys() != self._numbers.keys())
        if others:
            in_use = self._uses.keys()
            self._number(in_use)
            policies = {policy.policy_id: policy for group in in_use for policy in group.deciding.policies}
            wanted = {each: peers_set(each) for policy in policies.values() for each in selectors(policy)}
            if wanted != self._selectors:
                self._selectors = wanted
                touched |= self._known(index)
            made = {} if anew else self._chains
            self._chains = {group: made.get(group) or nft_chains(group, families) for group in in_use}
        self._step(touched, index, steps, others=others)

    @property
    def groups_in_use(self) -> Collection[Group]:
        return self._uses.keys()

    def _number(self, groups: Collection[Group]) -> None:
        """The lowest that are free; a group keeps its number while it is in use."""
        self._numbers = {group: number for group, number in self._numbers.items() if group in groups}
        taken = set(self._numbers.values())
        free = (number for number in itertools.count(1) if number not in taken)
        self._numbers.update(zip((group for group in groups if group not in self._numbers), free, strict=False))

    def _step(self, touched: Iterable[str], index: DesiredIndex, steps: Steps, *, others: bool) -> None:
        """`others`: there are other groups than before."""
        removed: _Elements = {}
        added: _Elements = {}
        for service_id in touched:
            before, after = self._elements.pop(service_id, {}), dict(self._elements_of(service_id, index))
            if after:
                self._elements[service_id] = after
            removed.update(item for item in before.items() if after.get(item[0], before) != item[1])
            added.update(item for item in after.items() if before.get(item[0], after) != item[1])
        if not others:
            steps.elements(removed, added)
            return
        for name in self._selectors.values():
            steps.new_set(name)
        for direction in (INGRESS, EGRESS):
            of_direction: dict[bytes, Data] = {
                struct.pack("=I", number): group.chain
                for group, number in self._numbers.items()
                if group.direction == direction
            }
            steps.fixed_set(f"{direction}_groups", of_direction)
        chains = {name: chain for made in self._chains.values() for name, chain in made.items()}
        for name, chain in chains.items():
            steps.chain(name, chain)
        steps.elements(removed, added)
        counters = {counter_name(policy.policy_id) for group in self._uses for policy in group.deciding.policies}
        steps.keep_policy_parts(chains.keys(), set(self._selectors.values()), counters)

    def _known(self, index: DesiredIndex) -> set[str]:
        return self._elements.keys() | self.frontends.keys() | index.frontends.keys() | self._local.keys()

    def _regroup(self, service_id: str, index: DesiredIndex) -> bool:
        """Whether tasks of a service are in other groups than before."""
        before, after = self.frontends.get(service_id), index.frontends.get(service_id)
        if after is not None:
            self.changed |= before is not None and _as_policies_see(before) != _as_policies_see(after)
            self.frontends[service_id] = after
        elif before is not None and not index.endpoints_of(service_id) and service_id not in self._local:
            del self.frontends[service_id]
        groups = dict(self._groups_of(service_id, index))
        known = self._groups.pop(service_id, {})
        if groups:
            self._groups[service_id] = groups
        if groups == known:
            return False
        self._uses.subtract(known.values())
        self._uses.update(groups.values())
        for group in known.values():
            if not self._uses[group]:
                del self._uses[group]
        return True

    def _groups_of(self, service_id: str, index: DesiredIndex) -> Iterator[tuple[tuple[str, str], Group]]:
        frontend = self.frontends.get(service_id)
        ingress = self.policies.deciding(frontend, INGRESS)
        egress = self.policies.deciding(frontend, EGRESS)
        if frontend is None or (ingress is None and egress is None):
            return
        if ingress is not None and any(port.published and not port.host_mode for port in frontend.ports):
            for endpoint in index.endpoints_of(service_id):
                yield (INGRESS, endpoint.address), Group(INGRESS, ingress)
        for task in self._local.get(service_id, ()):
            if ingress is not None:
                yield (INGRESS, task.address), Group(INGRESS, ingress, _memberships(task, index.networks))
            if egress is not None:
                yield (EGRESS, task.address), Group(EGRESS, egress)

    def _elements_of(self, service_id: str, index: DesiredIndex) -> Iterator[tuple[tuple[str, bytes], Data]]:
        frontend = self.frontends.get(service_id)
        local = self._local.get(service_id, ())
        sets = [name for each, name in self._selectors.items() if frontend is not None and matches(each, frontend)]
        if sets:
            addresses = {endpoint.address for endpoint in index.endpoints_of(service_id)}
            addresses.update(task.address for task in local)
            for name in sets:
                for address in addresses:
                    yield (name, packed(address)), None
        groups = self._groups.get(service_id, {})
        for (direction, address), group in groups.items():
            yield (direction, packed(address)), struct.pack("=I", self._numbers[group])
        for task in local:
            found = (groups.get((direction, task.address)) for direction in (INGRESS, EGRESS))
            networks = (index.networks.get(each) for each in task.networks)
            if any(group is not None and not group.deciding.counting for group in found) or any(
                network is not None and network.closed for network in networks
            ):
                yield ("guarded", packed(task.address)), None


def _by_service(tasks: Iterable[LocalTask]) -> dict[str, list[LocalTask]]:
    found: dict[str, list[LocalTask]] = defaultdict(list)
    for task in tasks:
        found[task.service_id].append(task)
    return dict(found)


def _memberships(task: LocalTask, networks: Mapping[str, NetworkInfo]) -> tuple[Membership, ...]:
    known = [networks[each] for each in task.networks if each in networks]
    return tuple(Membership(each.ordinal, each.closed, each.ipv6_disabled) for each in sorted(known, key=_ordinal))


def _ordinal(network: NetworkInfo) -> int:
    return network.ordinal


def _as_policies_see(service: Frontend) -> tuple[object, ...]:
    return (service.tenant, service.app, service.service, service.labels, service.policy)
