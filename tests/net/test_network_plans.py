"""The pure planners: one step from any state to any other lands where a fresh start does."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net import addresses
from net.desired_changes import DesiredIndex
from net.model import DesiredNetwork, Endpoint, Frontend, LocalTask, NetworkInfo, Port
from net.overlay_plan import mtu_bytes, overlay_of, replacing
from net.route_messages import Neighbour, pack_address
from net.ruleset import TYPE_MARK, Data, ObservedRuleset, Ruleset, RulesetChange, SetShape, repair
from net.ruleset_plan import RulesetPlan, dns_peers, group_name
from tests.net.world import CONFIG, ENDPOINTS, FRONTENDS, HOSTS, NETWORKS

TASKS = tuple(LocalTask(each.task_id, each.address, each.networks) for each in ENDPOINTS)


def desired_states() -> st.SearchStrategy[DesiredNetwork]:
    readiness = st.lists(st.booleans(), min_size=len(ENDPOINTS), max_size=len(ENDPOINTS))
    endpoints = st.builds(
        lambda ready, kept: tuple(
            replace(each, ready=r) for each, r, k in zip(ENDPOINTS, ready, kept, strict=True) if k
        ),
        readiness,
        readiness,
    )
    return st.builds(
        DesiredNetwork,
        st.just(CONFIG),
        st.just(HOSTS[0]),
        st.lists(st.sampled_from(HOSTS), unique=True).map(tuple),
        st.lists(st.sampled_from(FRONTENDS), unique=True).map(tuple),
        endpoints,
        st.lists(st.sampled_from(NETWORKS), unique=True).map(tuple),
        st.lists(st.sampled_from(TASKS), unique=True).map(tuple),
    )


class Table:
    """What the kernel would hold: applies changes as strictly as it does."""

    def __init__(self) -> None:
        self.elements: dict[str, dict[bytes, Data]] = {}
        self.chains: dict[str, tuple[str, ...]] = {}

    def apply(self, change: RulesetChange) -> None:
        for name in change.new_sets:
            assert name not in self.elements
            self.elements[name] = {}
        for name in change.new_chains:
            assert name not in self.chains
            self.chains[name] = ()
        for name, removed in change.removed_elements.items():
            for key in removed:
                del self.elements[name][key]
        for name, added in change.new_elements.items():
            for key, data in added.items():
                assert key not in self.elements[name]
                assert not isinstance(data, str) or data in self.chains
                self.elements[name][key] = data
        for name, chain in change.rewritten_chains.items():
            assert name in self.chains
            self.chains[name] = tuple(rule.tagged_comment for rule in chain.rules)
        for name in change.removed_sets:
            del self.elements[name]
        for name in change.removed_chains:
            del self.chains[name]

    def observe(self) -> ObservedRuleset:
        return ObservedRuleset(self.chains, self.elements)


def advance(plan: RulesetPlan, index: DesiredIndex, desired: DesiredNetwork) -> RulesetChange:
    return plan.advance(desired, index, index.advance(desired))


@settings(max_examples=150, deadline=None)
@given(st.lists(desired_states(), min_size=1, max_size=5))
def test_steps_lead_to_the_same_table_as_a_fresh_start(states: list[DesiredNetwork]) -> None:
    plan, index, table = RulesetPlan("fwx0", "fwt*"), DesiredIndex(), Table()
    for desired in states:
        change = advance(plan, index, desired)
        if desired is states[0]:
            change = repair(table.observe(), plan.ruleset)
        table.apply(change)
        assert not repair(table.observe(), plan.ruleset)
    fresh = RulesetPlan("fwx0", "fwt*")
    advance(fresh, DesiredIndex(), states[-1])
    # Who was there and is gone, a fresh start cannot know.
    assert {**fresh.ruleset.elements, "gone": plan.ruleset.elements["gone"]} == plan.ruleset.elements
    counted = ("vip_", "published_")
    left = {name: chain for name, chain in plan.ruleset.chains.items() if not name.startswith(counted)}
    assert {n: c for n, c in fresh.ruleset.chains.items() if not n.startswith(counted)} == left


def test_a_repair_from_nothing_makes_all_and_from_all_makes_nothing() -> None:
    plan, table = RulesetPlan("fwx0", "fwt*"), Table()
    advance(plan, DesiredIndex(), DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, TASKS))
    table.apply(repair(table.observe(), plan.ruleset))
    assert not repair(table.observe(), plan.ruleset)
    table.chains["vip_9"] = ("stale",)
    table.elements["net_9"] = {b"abcd": None}
    change = repair(table.observe(), plan.ruleset)
    assert (change.removed_chains, change.removed_sets) == (["vip_9"], ["net_9"])
    assert repair(table.observe(), Ruleset()).removed_sets


def test_a_set_of_another_shape_or_a_chain_with_another_hook_makes_the_table_anew() -> None:
    plan = RulesetPlan("fwx0", "fwt*")
    advance(plan, DesiredIndex(), DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, TASKS))
    table, wanted = Table(), plan.ruleset
    table.apply(repair(table.observe(), wanted))
    hooks = {name: chain.hook for name, chain in wanted.chains.items()}
    assert not repair(replace(table.observe(), shapes=wanted.sets, hooks=hooks), wanted)
    for others in ({"shapes": {"gone": SetShape(TYPE_MARK, 4)}}, {"hooks": {**hooks, "forward": None}}):
        change = repair(replace(table.observe(), **others), wanted)
        assert len(change.anew) == 1
        assert change.new_sets == wanted.sets and change.new_chains == wanted.chains
        assert not change.removed_elements and not change.removed_chains
        assert "anew" in change.describe()[0]


def test_one_change_among_ten_thousand_endpoints_is_small_and_quick() -> None:
    networks = tuple(NetworkInfo(f"n{n}", n + 1, "default", f"app{n}", "default") for n in range(1000))
    frontends = tuple(
        Frontend(f"s{n}", "web", f"app{n}", "default", f"10.120.{n // 250}.{n % 250}", (Port("tcp", 80),), (f"n{n}",))
        for n in range(1000)
    )
    endpoints = tuple(
        Endpoint(f"t{n}-{b}", f"web.{b}", f"s{n}", "node2", f"10.{64 + n // 250}.{n % 250}.{b}", True, (f"n{n}",))
        for n in range(1000)
        for b in range(10)
    )
    plan, index = RulesetPlan("fwx0", "fwt*"), DesiredIndex()
    desired = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, frontends, endpoints, networks, TASKS)
    advance(plan, index, desired)
    seconds = []
    for number in range(5):
        place = 5000 + number
        changed = (*endpoints[:place], replace(endpoints[place], ready=False), *endpoints[place + 1 :])
        started = time.thread_time()  # not what others on this machine take meanwhile
        change = advance(plan, index, replace(desired, endpoints=changed))
        seconds.append(time.thread_time() - started)
        assert sum(len(each) for each in change.new_elements.values()) <= 22
    assert min(seconds) < 0.02, seconds


def withdraw_first_two(plan: RulesetPlan, index: DesiredIndex, desired: DesiredNetwork) -> None:
    first = tuple(replace(each, ready=False) for each in ENDPOINTS[:2])
    advance(plan, index, replace(desired, endpoints=(*first, *ENDPOINTS[2:])))
    assert not plan.ruleset.elements["gone"]
    advance(plan, index, replace(desired, endpoints=ENDPOINTS[2:]))


def test_addresses_of_tasks_that_are_gone_are_known_until_they_are_used_again() -> None:
    plan, index = RulesetPlan("fwx0", "fwt*"), DesiredIndex()
    desired = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, TASKS)
    advance(plan, index, desired)
    assert not plan.ruleset.elements["gone"]
    withdraw_first_two(plan, index, desired)
    assert sorted(plan.ruleset.elements["gone"]) == [bytes([10, 112, 1, 11]), bytes([10, 112, 2, 11])]
    again = replace(ENDPOINTS[0], task_id="another", ready=False)
    advance(plan, index, replace(desired, endpoints=(again, *ENDPOINTS[2:])))
    assert sorted(plan.ruleset.elements["gone"]) == [bytes([10, 112, 2, 11])]


def test_an_address_is_open_on_its_host_before_the_endpoint_is_known() -> None:
    """Other hosts may know the new task's endpoint earlier: their first connections must not be refused here."""
    plan, index = RulesetPlan("fwx0", "fwt*"), DesiredIndex()
    desired = DesiredNetwork(CONFIG, HOSTS[0], HOSTS, FRONTENDS, ENDPOINTS, NETWORKS, TASKS)
    advance(plan, index, desired)
    local = ENDPOINTS[0].address
    withdraw_first_two(plan, index, desired)
    advance(plan, index, replace(desired, endpoints=ENDPOINTS[2:], tasks=TASKS[1:]))
    assert plan.ruleset.elements["gone"].keys() == {pack_address(local), pack_address(ENDPOINTS[1].address)}
    advance(
        plan, index, replace(desired, endpoints=ENDPOINTS[2:], tasks=(replace(TASKS[0], task_id="next"), *TASKS[1:]))
    )
    assert plan.ruleset.elements["gone"].keys() == {pack_address(ENDPOINTS[1].address)}


def test_hosts_become_one_route_neighbour_and_fdb_entry_each() -> None:
    config = replace(CONFIG, ipv6_prefix="")
    desired = DesiredNetwork(config, HOSTS[0], HOSTS[:2])
    before, after = overlay_of(desired, 7), overlay_of(replace(desired, hosts=HOSTS), 7)
    assert len(after.neighbours - before.neighbours) == 1
    assert len(after.forwardings - before.forwardings) == 1
    assert {route.destination for route in after.routes - before.routes} == {"10.112.3.0/24", "0.0.0.0/0"}
    assert len(after.rules - before.rules) == 1


def test_ipv6_adds_the_same_of_its_own_and_no_second_fdb_entry() -> None:
    desired = DesiredNetwork(CONFIG, HOSTS[0], HOSTS[:2])
    before, after = overlay_of(desired, 7), overlay_of(replace(desired, hosts=HOSTS), 7)
    neighbours = {each.address for each in after.neighbours - before.neighbours}
    assert neighbours == {"10.112.3.1", "fd00:f00d::a70:301"}
    assert len(after.forwardings - before.forwardings) == 1
    routes = {route.destination: route for route in after.routes - before.routes if ":" in route.destination}
    assert set(routes) == {"fd00:f00d::a70:300/120", "::/0"}
    assert routes["fd00:f00d::a70:300/120"].source == "fd00:f00d::a70:101"
    assert {rule.family for rule in after.rules - before.rules} == {socket.AF_INET, socket.AF_INET6}


def test_what_is_replaced_under_its_key_is_not_removed_first() -> None:
    old, new, gone = (
        Neighbour(7, "10.1.1.1", "02:00:00:00:00:01"),
        Neighbour(7, "10.1.1.1", "02:00:00:00:00:02"),
        Neighbour(7, "10.1.1.9", "02:00:00:00:00:03"),
    )
    assert replacing({new}, {old, gone}) == ([gone], [new])


@pytest.mark.parametrize(
    ("configured", "underlay", "address", "mtu"),
    [
        (0, 1500, "192.0.2.1", 1450),
        (1300, 1500, "192.0.2.1", 1300),
        (0, 600, "192.0.2.1", 576),
        (0, 9000, "192.0.2.1", 8950),
        (0, 1500, "2001:db8::1", 1430),
    ],
)
def test_the_mtu_leaves_room_for_the_tunnel(configured: int, underlay: int, address: str, mtu: int) -> None:
    assert mtu_bytes(configured, underlay, address) == mtu


def test_dns_peers_are_the_next_in_the_ring() -> None:
    desired = DesiredNetwork(CONFIG, HOSTS[1], HOSTS)
    assert [each.ordinal for each in dns_peers(desired)] == [3, 1]


def test_chain_and_interface_names_fit_the_kernel() -> None:
    assert group_name((1, 2)) == "group_1_2"
    assert len(group_name(tuple(range(1, 400)))) <= 60
    assert len(addresses.task_interface("fw", "x" * 26)) == 15


def test_blocks_and_addresses_are_handed_out_in_order() -> None:
    assert addresses.block_of_pool("10.112.0.0/13", 24, 0) == "10.112.0.0/24"
    assert addresses.block_of_pool("10.112.0.0/13", 24, 2047) == "10.119.255.0/24"
    with pytest.raises(ValueError, match="2048 blocks"):
        addresses.block_of_pool("10.112.0.0/13", 24, 2048)
    free = addresses.free_addresses("10.112.5.0/29", {"10.112.5.3"}, first_index=2)
    assert list(free) == ["10.112.5.2", "10.112.5.4", "10.112.5.5", "10.112.5.6"]
    assert addresses.first_address("10.112.5.0/24") == "10.112.5.1"
    assert int(addresses.tunnel_mac("node")[:2], 16) & 3 == 2
