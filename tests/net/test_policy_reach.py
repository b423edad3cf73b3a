"""Whose names a service may know by policies is what the verdict says of single connections, over random worlds."""

from __future__ import annotations

import random

import pytest

from net.desired_changes import DesiredIndex
from net.policy_plan import Connection
from net.policy_reach import PolicyReach
from tests.net.test_policy_plan import random_world, task, verdict_of

# In each range of ports that the worlds' rules have, and beside them.
PORTS = (("tcp", 80), ("tcp", 5432), ("tcp", 9), ("udp", 80), ("sctp", 80))


@pytest.mark.parametrize("seed", range(3))
def test_the_reach_and_the_verdict_agree(seed: int) -> None:
    chance = random.Random(seed)
    index, reach = DesiredIndex(), PolicyReach()
    seen = {True: 0, False: 0}
    for _ in range(40):  # the same services with other labels and policies: nothing of the last world may be left
        desired = random_world(chance)
        reach.advance(desired, index, index.advance(desired))
        ends = [task(desired, each) for each in desired.endpoints if each.node_id == "n1"]
        for source in ends:
            assert source.service is not None
            found = reach.of(source.service.service_id)
            for target in ends:
                assert target.service is not None
                ways = [Connection(source, target, protocol, port) for protocol, port in PORTS]
                allowed = any(verdict_of(desired, way).allowed for way in ways)
                if set(source.networks).isdisjoint(target.networks):
                    assert (target.service.service_id in found) == allowed, (source, target)
                    seen[allowed] += 1
                elif target.service.service_id in found:
                    assert allowed, (source, target)
    assert min(seen.values()) >= 5, seen


def test_nobody_is_reached_by_policies_where_there_are_none_or_one_is_not_known() -> None:
    assert PolicyReach().of("id-web") == frozenset()
