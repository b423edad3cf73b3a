"""Which services policies let a service reach beside those of its networks: whose names it may know; pure.

This is the verdict of `policy_plan.World` asked for every protocol and port at once; a test compares both. Ready-made
for services that ask: finding it anew for each question would go through all policies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from net.desired_changes import Change, DesiredIndex
from net.model import DesiredNetwork, Frontend
from net.policy import EGRESS, Peer, Policy, PolicyPort, Selector
from net.policy_plan import Deciding, Policies, matches

_Ports = tuple[PolicyPort, ...]  # empty: all, of any protocol


class PolicyReach:
    """Moves on with each desired network."""

    def __init__(self) -> None:
        self._policies = Policies(())
        self._opening: tuple[Policy, ...] = ()  # applied by themselves, that may open ways into services
        self._own_opening: dict[str, Policy] = {}  # the same of services, by service id
        self._services: dict[str, Frontend] = {}
        self._by_app: dict[str, dict[str, dict[str, Frontend]]] = defaultdict(lambda: defaultdict(dict))  # by tenant
        self._found: dict[str, frozenset[str]] = {}  # service id -> ids of those it reaches

    def advance(self, desired: DesiredNetwork, index: DesiredIndex, change: Change) -> None:
        """`index` is already at `desired`; `change` is what that changed."""
        if change.policies:
            self._policies = Policies(desired.policies)
            self._opening = tuple(policy for policy in desired.policies if _opens(policy))
            self._found = {}
        for service_id in change.services:
            before, after = self._services.get(service_id), index.frontends.get(service_id)
            if before is after or (before and after and _as_policies_see(before) == _as_policies_see(after)):
                continue
            self._found = {}
            if before is not None:
                self._forget(before)
            if after is not None:
                self._by_app[after.tenant][after.app][service_id] = self._services[service_id] = after
                if after.policy is not None and _opens(after.policy):
                    self._own_opening[service_id] = after.policy

    def _forget(self, service: Frontend) -> None:
        del self._services[service.service_id]
        self._own_opening.pop(service.service_id, None)
        apps = self._by_app[service.tenant]
        del apps[service.app][service.service_id]
        if not apps[service.app]:
            del apps[service.app]
        if not apps:
            del self._by_app[service.tenant]

    def of(self, service_id: str) -> frozenset[str]:
        """Ids of services that one reaches by a rule that names it, on some port; it needs no common network."""
        if not self._opening and not self._own_opening:
            return frozenset()
        found = self._found.get(service_id)
        if found is None:
            source = self._services.get(service_id)
            found = frozenset(self._reached(source)) if source is not None else frozenset()
            self._found[service_id] = found
        return found

    def _reached(self, source: Frontend) -> Iterator[str]:
        egress = self._policies.deciding(source, EGRESS)
        for policy in self._opening:
            if rules := list(_ports_in(policy, source)):
                for target in self._selected(policy.selects):
                    if _meet(rules, _ports_out(egress, target)):
                        yield target.service_id
        for service_id, policy in self._own_opening.items():
            if _meet(list(_ports_in(policy, source)), _ports_out(egress, self._services[service_id])):
                yield service_id

    def _selected(self, selector: Selector) -> Iterator[Frontend]:
        apps = self._by_app.get(selector.tenant, {})
        for services in [apps.get(selector.app, {})] if selector.app else list(apps.values()):
            yield from (service for service in services.values() if matches(selector, service))


def _opens(policy: Policy) -> bool:
    """Whether it lets in services that no network lets in. One that only counts opens nothing."""
    rules = () if policy.dry_run else policy.ingress or ()
    return any(peer.services is not None for rule in rules for peer in rule.peers)


def _ports_in(policy: Policy, source: Frontend) -> Iterator[_Ports]:
    """Of each ingress rule that names the source; rules without peers open nothing without a common network."""
    return (rule.ports for rule in policy.ingress or () if _named(rule.peers, source))


def _ports_out(egress: Deciding | None, target: Frontend) -> Iterator[_Ports]:
    """Of each way that the source's policies leave open to a target."""
    if egress is None or egress.counting:
        yield ()
        return
    for policy in egress.policies:
        for rule in policy.egress or ():
            if not rule.peers or _named(rule.peers, target):
                yield rule.ports


def _named(peers: Iterable[Peer], service: Frontend) -> bool:
    return any(peer.services is not None and matches(peer.services, service) for peer in peers)


def _meet(ways_in: list[_Ports], ways_out: Iterable[_Ports]) -> bool:
    """Whether some port of some protocol is in a rule of both."""
    return any(
        not inside or not outside or any(_overlap(one, other) for one in inside for other in outside)
        for outside in ways_out
        for inside in ways_in
    )


def _overlap(one: PolicyPort, other: PolicyPort) -> bool:
    if one.protocol != other.protocol:
        return False
    return not one.first or not other.first or (one.first <= other.last and other.first <= one.last)


def _as_policies_see(service: Frontend) -> tuple[object, ...]:
    return (service.tenant, service.app, service.service, service.labels, service.policy)
