"""From one desired network to the next: the whole nftables table, and what changes in it; pure.

The plan keeps an index of what it was last given, so one changed endpoint among 10,000 costs a walk by
identity and the elements of its service, not a rebuild.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict

from net import encrypted_only
from net.balance_plan import Draw, ServiceElements, ServiceRules, packed, service_rules
from net.chains_plan import (
    DNS_PEERS_MAX,
    FIXED_SETS,
    fixed_chains,
    host_mark,
)
from net.desired_changes import Change, DesiredIndex
from net.model import DesiredNetwork, Host
from net.nft_family import NFPROTO_IPV4, NFPROTO_IPV6, Family, families
from net.policy_elements import PolicyElements
from net.route_messages import pack_mac
from net.ruleset import Data, Ruleset, RulesetChange
from net.ruleset_steps import ADDRESSES, Steps
from net.service_chains import balance_chain, group_chains

_NOTHING = ServiceRules()
GONE_MAX = 1024


class RulesetPlan:
    """The desired table; `advance` moves it on and tells the difference."""

    def __init__(self, tunnel: str, veths: str, wireguard: str = "fww*") -> None:
        self.ruleset = Ruleset(sets=dict(FIXED_SETS), elements={name: {} for name in FIXED_SETS})
        self._tunnel = tunnel
        self._veths = veths
        self._wireguard = wireguard
        self._services: dict[str, ServiceRules] = {}
        self._place = ("", "")  # of this host: node and zone
        self._families: tuple[Family, ...] = ()
        self._gone: dict[bytes, None] = {}  # addresses that tasks had, the latest last
        self._members: dict[str, dict[bytes, int]] = defaultdict(dict)  # network id -> address -> count
        self.policies = PolicyElements()

    def advance(self, desired: DesiredNetwork, index: DesiredIndex, change: Change) -> RulesetChange:
        """`index` is already at `desired`; `change` is what that changed."""
        steps = Steps(self.ruleset)
        both = families(desired.config, desired.local) if change.settings else self._families
        anew, self._families = both != self._families, both
        self._advance_services(desired.local, index, change, steps, anew)
        if change.hosts or change.settings:
            _advance_hosts(desired, steps)
        self._advance_members(index, change, steps, anew)
        self._advance_gone(index, change, steps)
        self.policies.advance(desired, index, change, steps, self._families, anew)
        if change.hosts or change.settings:
            peers = len(dns_peers(desired))
            fixed = fixed_chains(desired.config, desired.local, self._tunnel, self._veths, peers)
            fixed[encrypted_only.CHAIN] = encrypted_only.encrypted_only(desired.config, self._wireguard)
            for name, chain in fixed.items():
                steps.chain(name, chain)
        return steps.finish()

    def _advance_services(self, local: Host, index: DesiredIndex, change: Change, steps: Steps, anew: bool) -> None:
        """`anew`: the families are others than before."""
        services = change.services
        if anew or (local.node_id, local.zone) != self._place:
            self._place = (local.node_id, local.zone)
            services = services | index.frontends.keys()
        removed: ServiceElements = {}
        added: ServiceElements = {}
        draws: set[Draw] = set()
        left: set[Draw] = set()
        for service_id in services:
            frontend = index.frontends.get(service_id)
            old = self._services.pop(service_id, _NOTHING)
            new = service_rules(frontend, index.endpoints_of(service_id), local) if frontend else _NOTHING
            if new.elements:
                self._services[service_id] = new
            before, after = old.elements, new.elements
            removed.update(item for item in before.items() if after.get(item[0], before) != item[1])
            added.update(item for item in after.items() if before.get(item[0], after) != item[1])
            draws |= new.draws
            left |= old.draws
        for draw in draws:
            steps.chain(draw.chain, balance_chain(draw, self._families))
        # A port or VIP may pass from one service to another within one change.
        steps.elements(removed, added)
        # Chains for any service stay once they are there: there are few and they depend on nothing.
        steps.remove_chains({draw.chain for draw in left if draw.vip} - {draw.chain for draw in draws})

    def _advance_gone(self, index: DesiredIndex, change: Change, steps: Steps) -> None:
        """Until another task has the address; the latest of them, since clients do not wait forever."""
        gone = dict(self._gone)
        if change.gone:
            present = {endpoint.address for endpoint in index.endpoints.values()}
            gone.update((packed(address), None) for address in change.gone if address not in present)
        for _, address, step in change.memberships:
            if step > 0:
                gone.pop(packed(address), None)
        # A task's own host lets packets to it in before anybody hears of its endpoint, which others may do first.
        for address in change.taken:
            gone.pop(packed(address), None)
        for key in list(gone)[: max(len(gone) - GONE_MAX, 0)]:
            del gone[key]
        if gone != self._gone:
            self._gone = gone
            steps.whole_set("gone", dict(gone), FIXED_SETS["gone"])

    def _advance_members(self, index: DesiredIndex, change: Change, steps: Steps, anew: bool) -> None:
        touched: set[str] = set()
        for networks, address, step in change.memberships:
            for network_id in networks:
                touched.add(network_id)
                members = self._members[network_id]
                key = packed(address)
                members[key] = members.get(key, 0) + step
                if members[key] <= 0:
                    del members[key]
        if change.tasks or change.networks or anew:
            touched = self._advance_tasks(index, steps, touched)
        for network_id in touched:
            network = index.networks.get(network_id)
            if network is None or network_id not in index.local_networks:
                continue
            wanted: dict[bytes, Data] = dict.fromkeys(self._members[network_id])
            wanted.update(dict.fromkeys(packed(address) for address in index.local_networks[network_id]))
            steps.whole_set(f"net_{network.ordinal}", wanted, ADDRESSES)

    def _advance_tasks(self, index: DesiredIndex, steps: Steps, touched: set[str]) -> set[str]:
        hairpins: dict[bytes, Data] = {}
        confined: dict[bytes, Data] = {}
        tasks: dict[bytes, Data] = {}
        groups: set[str] = set()
        for task in index.tasks.values():
            key = packed(task.address)
            known = [index.networks[each] for each in task.networks if each in index.networks]
            ordinals = tuple(sorted(network.ordinal for network in known))
            name = group_name(ordinals)
            open_to = {
                NFPROTO_IPV4: tuple(sorted(each.ordinal for each in known if not each.closed)),
                NFPROTO_IPV6: tuple(
                    sorted(each.ordinal for each in known if not each.closed and not each.ipv6_disabled)
                ),
            }
            for chain_name, chain in group_chains(name, self._families, open_to).items():
                groups.add(chain_name)
                steps.chain(chain_name, chain)
            hairpins[key + key] = None
            tasks[key] = name
            if known and all(network.internal for network in known):
                confined[key] = None
        for set_name, wanted in (("hairpins", hairpins), ("confined", confined), ("tasks", tasks)):
            steps.whole_set(set_name, wanted, FIXED_SETS[set_name])
        used = {f"net_{index.networks[each].ordinal}" for each in index.local_networks if each in index.networks}
        steps.keep_only(groups, used)
        return touched | set(index.local_networks)


def dns_peers(desired: DesiredNetwork) -> list[Host]:
    """The hosts whose name servers stand in for this one's: the next ones in the ring of ordinals."""
    others = sorted(
        (host for host in desired.hosts if host.node_id != desired.local.node_id),
        key=lambda host: host.ordinal,
    )
    after = [host for host in others if host.ordinal > desired.local.ordinal]
    before = [host for host in others if host.ordinal <= desired.local.ordinal]
    return (after + before)[:DNS_PEERS_MAX]


def group_name(ordinals: tuple[int, ...]) -> str:
    """The name of the chain of a group of networks; long groups by digest."""
    name = "group_" + "_".join(map(str, ordinals)) if ordinals else "group_none"
    if len(name) > 60:
        name = "group_" + hashlib.sha256(name.encode()).hexdigest()[:32]
    return name


def _advance_hosts(desired: DesiredNetwork, steps: Steps) -> None:
    others = [host for host in desired.hosts if host.node_id != desired.local.node_id]
    everyone = [desired.local, *others]
    seen = {packed(address) for host in everyone for address in (host.address, *host.other_addresses)}
    wanted: dict[str, dict[bytes, Data]] = {
        "host_marks": {pack_mac(host.tunnel_mac): struct.pack("=I", host_mark(host.ordinal)) for host in others},
        "tunnels": {packed(host.tunnel_address): None for host in everyone},
        "underlays": dict.fromkeys(address for address in seen if len(address) == 4),
        "underlays_ipv6": dict.fromkeys(address for address in seen if len(address) == 16),
        "dns_peers": {
            struct.pack("=I", number): packed(host.tunnel_address) for number, host in enumerate(dns_peers(desired))
        },
    }
    for name, elements in wanted.items():
        steps.whole_set(name, elements, FIXED_SETS[name])
