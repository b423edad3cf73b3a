"""The verdict in words and the compiled chains say the same, over random worlds; and a changed task is an element."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from net.balance_plan import packed
from net.desired_changes import DesiredIndex
from net.model import DesiredNetwork, Endpoint, Frontend, Host, LocalTask, NetworkConfig, NetworkInfo, Port
from net.policy import EGRESS, INGRESS, Peer, Policy, PolicyPort, PolicyRule, Selector
from net.policy_chains import (
    CIDR,
    HOST,
    ITSELF,
    NETWORK,
    OUTSIDE,
    PEER_DNS,
    PUBLISHED,
    SERVICE,
    Group,
    Line,
    peers_set,
    policy_lines,
)
from net.policy_elements import PolicyElements
from net.policy_plan import Connection, Party, Policies, Verdict, World, itself, within
from net.ruleset import Ruleset
from net.ruleset_plan import RulesetPlan

CONFIG = NetworkConfig("10.112.0.0/13", "10.120.0.0/16", trusted_cidrs=("198.51.100.0/24",), ipv6_prefix="fd00::/96")
NODES = (
    Host("n1", "h1", "192.0.2.1", "10.112.1.0/24", "10.112.1.1", "02:00:00:00:00:01", 1),
    Host("n2", "h2", "192.0.2.2", "10.112.2.0/24", "10.112.2.1", "02:00:00:00:00:02", 2),
)
OUTSIDERS = ("203.0.113.9", "203.0.113.200", "198.51.100.7", "2001:db8::9")
CIDRS = ("203.0.113.0/24", "0.0.0.0/0", "198.51.100.0/25", "2001:db8::/32", "::/0")


class Kernel:
    """The compiled form of every host, interpreted: what `net/policy_chains.py` promises the kernel's rules to mean."""

    def __init__(self, desired: DesiredNetwork) -> None:
        self.desired = desired
        self.of: dict[str, tuple[Ruleset, PolicyElements]] = {}
        for node in NODES:
            tasks = tuple(
                LocalTask(each.task_id, each.address, each.networks, service_id=each.service_id)
                for each in desired.endpoints
                if each.node_id == node.node_id
            )
            local, index = replace(desired, local=node, tasks=tasks), DesiredIndex()
            plan = RulesetPlan("fwx0", "fwt*")
            plan.advance(local, index, index.advance(local))
            self.of[node.node_id] = (plan.ruleset, plan.policies)

    def allows(self, connection: Connection) -> tuple[bool, list[str]]:
        """(whether it passes, ids of policies that counted it)."""
        counted: list[str] = []
        source, target = connection.source, connection.target
        if source.kind == "task":
            node = self._node(source)
            if not self._passes(node, EGRESS, source.address, connection, counted):
                return False, counted
            if target.kind == "outside" and packed(source.address) in self.of[node][0].elements["confined"]:
                return False, counted
        if target.kind != "task":
            return True, counted
        node = self._node(target)
        trusted = any(within(source.address, each) for each in CONFIG.trusted_cidrs)
        if source.kind == "outside" and not connection.published and not trusted:
            return False, counted
        return self._passes(node, INGRESS, target.address, connection, counted), counted

    def _passes(self, node: str, direction: str, address: str, connection: Connection, counted: list[str]) -> bool:
        ruleset, policies = self.of[node]
        number = ruleset.elements[direction].get(packed(address))
        if number is None:
            if direction == EGRESS or connection.published or connection.source.kind != "task":
                return True
            return self._by_default(ruleset, address, connection)
        assert isinstance(number, bytes)
        chain = ruleset.elements[f"{direction}_groups"][number]
        groups = {group.chain: group for group in policies.groups_in_use}
        group = groups[str(chain)]
        lines = policy_lines(group, ipv6=connection.ipv6)
        decided = self._run(ruleset, group, lines, str(chain), connection, counted)
        assert decided is not None, "a group's chain decides about every packet"
        return decided

    def _by_default(self, ruleset: Ruleset, address: str, connection: Connection) -> bool:
        """The chain of a task without policies, by the sets that its rules name."""
        name = str(ruleset.elements["tasks"][packed(address)]) + ("_ipv6" if connection.ipv6 else "")
        names = [rule.comment.rpartition(" ")[2] for rule in ruleset.chains[name].rules if "members" in rule.comment]
        return any(packed(connection.source.address) in ruleset.elements[f"net_{each}"] for each in names) or (
            connection.source.kind == "host" or itself(connection)
        )

    def _run(
        self,
        ruleset: Ruleset,
        group: Group,
        lines: dict[str, list[Line]],
        chain: str,
        connection: Connection,
        counted: list[str],
    ) -> bool | None:
        if chain in ("not_allowed", "stranger"):
            return False
        assert chain in ruleset.chains, f"{chain} is in the table"
        for line in lines[chain]:
            if not self._matches(ruleset, group, line, connection):
                continue
            if line.action == "accept":
                return True
            if line.action == "count":
                counted += line.policies
                assert all(f"policy_{each}" in ruleset.counters for each in line.policies)
                continue
            decided = self._run(ruleset, group, lines, line.chain, connection, counted)
            if decided is not None or line.action == "goto":
                return decided
        return None

    def _matches(self, ruleset: Ruleset, group: Group, line: Line, connection: Connection) -> bool:
        port = line.port
        if port is not None and port.protocol != connection.protocol:
            return False
        if port is not None and port.first and not port.first <= connection.port <= port.last:
            return False
        other = connection.source if group.direction == INGRESS else connection.target
        ours = other.kind != "outside" and not (other.kind == "host" and group.direction == EGRESS)
        if line.other == CIDR:
            assert line.peer is not None
            return (not ours and within(other.address, line.peer.cidr)) and not any(
                within(other.address, each) for each in line.peer.excepted
            )
        if line.other in (SERVICE, NETWORK):
            return ours and packed(other.address) in ruleset.elements[line.name]
        return {
            "": True,
            HOST: other.kind == "host",
            ITSELF: itself(connection),
            PUBLISHED: connection.published,
            OUTSIDE: other.kind == "outside",
            PEER_DNS: False,
        }[line.other]

    def _node(self, party: Party) -> str:
        return next(each.node_id for each in self.desired.endpoints if each.address == party.address)


def random_world(chance: random.Random) -> DesiredNetwork:
    tenants, apps, names, labels = ("default", "other"), ("shop", "blog"), ("web", "db"), ((), (("tier", "a"),))
    networks = tuple(
        NetworkInfo(
            f"{tenant}-{app}-{number}",
            len(tenants) * 4 * apps.index(app) + 2 * tenants.index(tenant) + number + 1,
            f"net{number}",
            app,
            tenant,
            internal=chance.random() < 0.2,
            ipv6_disabled=chance.random() < 0.3,
            closed=chance.random() < 0.3,
        )
        for tenant in tenants
        for app in apps
        for number in (0, 1)
    )

    def selector(tenant: str) -> Selector:
        return Selector(
            tenant, chance.choice(("", *apps)), chance.choice(("", "", *names)), chance.choice((*labels, ()))
        )

    def rule(tenant: str) -> PolicyRule:
        peers = []
        for _ in range(chance.randrange(3)):
            if chance.random() < 0.4:
                cidr = chance.choice(CIDRS)
                excepted = ("203.0.113.128/25",) if cidr in CIDRS[:2] and chance.random() < 0.5 else ()
                peers.append(Peer(cidr=cidr, excepted=excepted))
            else:
                peers.append(Peer(selector(chance.choice((tenant, *tenants)))))
        ports = chance.choice(
            (
                (),
                (PolicyPort("tcp", 80, 80),),
                (PolicyPort("udp"), PolicyPort("tcp", 5000, 6000)),
                (PolicyPort("sctp"),),
            )
        )
        return PolicyRule(tuple(peers), ports)

    def policy(number: str, selects: Selector) -> Policy:
        def rules() -> tuple[PolicyRule, ...] | None:
            return None if chance.random() < 0.4 else tuple(rule(selects.tenant) for _ in range(chance.randrange(3)))

        return Policy(number, f"policy-{number}", selects, rules(), rules(), dry_run=chance.random() < 0.45)

    frontends: list[Frontend] = []
    for tenant in tenants:
        for app in apps:
            for name in names:
                own = f"{tenant}-{app}-{name}"
                ports = (Port("tcp", 80, 8000 + len(frontends)),) if chance.random() < 0.5 else ()
                frontend = Frontend(
                    own,
                    name,
                    app,
                    tenant,
                    "",
                    ports,
                    (f"{tenant}-{app}-{chance.randrange(2)}",),
                    labels=chance.choice(labels),
                )
                if chance.random() < 0.2:
                    frontend = replace(frontend, policy=policy(own, Selector(tenant, app, name)))
                frontends.append(frontend)
    endpoints = tuple(
        Endpoint(
            f"{each.service_id}-{slot}", f"{each.service}.{slot}", each.service_id, f"n{slot}",
            f"10.112.{slot}.{number + 10}", True, each.networks,
        )
        for number, each in enumerate(frontends)
        for slot in (1, 2)
    )  # fmt: skip
    policies = tuple(policy(f"p{number}", selector(chance.choice(tenants))) for number in range(chance.randrange(6)))
    return DesiredNetwork(CONFIG, NODES[0], NODES, tuple(frontends), endpoints, networks, policies=policies)


def verdict_of(desired: DesiredNetwork, connection: Connection) -> Verdict:
    networks = {each.network_id: each for each in desired.networks}
    return World(Policies(desired.policies), networks, desired.config.trusted_cidrs).verdict(connection)


def task(desired: DesiredNetwork, endpoint: Endpoint) -> Party:
    frontend = next(each for each in desired.frontends if each.service_id == endpoint.service_id)
    return Party("task", endpoint.address, endpoint.task_name, frontend, endpoint.networks)


def connections(chance: random.Random, desired: DesiredNetwork, count: int) -> list[Connection]:
    found = []
    for _ in range(count):
        ends = [task(desired, chance.choice(desired.endpoints)) for _ in range(2)]
        ipv6 = chance.random() < 0.4
        outsiders = [each for each in OUTSIDERS if (":" in each) == ipv6]
        kind = chance.randrange(10)
        if kind == 0:
            ends[0] = Party("host", "10.112.2.1", "h2")
        elif kind in (1, 2):
            ends[0] = Party("outside", chance.choice(outsiders), "outside")
        elif kind in (3, 4):
            ends[1] = Party("outside", chance.choice(outsiders), "outside")
        service = ends[1].service
        published = service is not None and bool(service.ports) and ends[0].kind != "host" and chance.random() < 0.3
        protocol = chance.choice(("tcp", "udp", "sctp", "icmp"))
        found.append(Connection(ends[0], ends[1], protocol, chance.choice((80, 5432)), ipv6, published))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_verdict_and_the_chains_agree(seed: int) -> None:
    chance = random.Random(seed)
    denied = counted_by_dry_run = 0
    for _ in range(15):
        desired = random_world(chance)
        kernel = Kernel(desired)
        for connection in connections(chance, desired, 60):
            verdict = verdict_of(desired, connection)
            allowed, counted = kernel.allows(connection)
            assert verdict.allowed == allowed, (connection, verdict)
            if allowed:
                assert bool(counted) == any(step.would for step in verdict.steps), (connection, verdict, counted)
                counted_by_dry_run += bool(counted)
            denied += not allowed
    assert denied > 30
    assert counted_by_dry_run > 0


def test_one_task_more_among_thousands_is_some_elements() -> None:
    networks = (NetworkInfo("A", 1, "default", "shop", "default", closed=True),)
    frontends = tuple(
        Frontend(f"s{number}", f"s{number}", "shop", "default", "", networks=("A",)) for number in range(100)
    )
    endpoints = tuple(
        Endpoint(
            f"t{number}", f"t.{number}", f"s{number % 100}", "n2", f"10.113.{number >> 8}.{number & 255}", True, ("A",)
        )
        for number in range(10_000)
    )
    local = (LocalTask("t0", endpoints[0].address, ("A",), service_id="s0"),)
    rule = PolicyRule((Peer(Selector("default", "shop", "s1")), Peer(Selector("default", "shop"))))
    policies = (Policy("p", "p", Selector("default", service="s0"), (rule,), (rule,)),)
    desired = DesiredNetwork(CONFIG, NODES[0], NODES, frontends, endpoints, networks, local, policies)
    index, plan = DesiredIndex(), RulesetPlan("fwx0", "fwt*")
    plan.advance(desired, index, index.advance(desired))
    seconds = []
    for number in range(5):
        more = Endpoint(f"new{number}", f"s1.{101 + number}", "s1", "n2", f"10.114.0.{number}", True, ("A",))
        endpoints = (*endpoints, more)
        after = replace(desired, endpoints=endpoints)
        started = time.thread_time()  # not what others on this machine take meanwhile
        change = plan.advance(after, index, index.advance(after))
        seconds.append(time.thread_time() - started)
        added = {name: list(items) for name, items in change.new_elements.items()}
        assert sorted(added) == sorted(
            ["net_1", *(peers_set(peer.services) for peer in rule.peers if peer.services is not None)]
        )
        assert all(items == [packed(more.address)] for items in added.values())
        assert not change.removed_elements
        assert not change.rewritten_chains
    assert min(seconds) < 0.1, seconds  # in others, the garbage of all tests before may have been collected


def test_tasks_of_a_service_that_is_being_removed_stay_guarded() -> None:
    networks = (NetworkInfo("A", 1, "default", "shop", "default"),)
    frontend = Frontend("s", "db", "shop", "default", "", networks=("A",))
    endpoint = Endpoint("t", "db.1", "s", "n1", "10.112.1.9", True, ("A",))
    local = (LocalTask("t", endpoint.address, ("A",), service_id="s"),)
    policies = (Policy("p", "p", Selector("default"), ()),)
    desired = DesiredNetwork(CONFIG, NODES[0], NODES, (frontend,), (endpoint,), networks, local, policies)
    index, plan = DesiredIndex(), RulesetPlan("fwx0", "fwt*")
    plan.advance(desired, index, index.advance(desired))
    for after in (replace(desired, frontends=()), replace(desired, frontends=(), endpoints=())):
        plan.advance(after, index, index.advance(after))
        assert packed(endpoint.address) in plan.ruleset.elements["ingress"]
    gone = replace(desired, frontends=(), endpoints=(), tasks=())
    plan.advance(gone, index, index.advance(gone))
    assert not plan.ruleset.elements["ingress"]
    assert not [name for name in plan.ruleset.chains if name.startswith("ingress_")]
    assert not plan.ruleset.counters
