"""Each scenario holds, and does not without the guard rule that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from raft.errors import MemberFault
from raft.rules import RULES, all_but
from tests.raft.scenario import Failed, replay, rule_of

SCENARIOS = sorted(Path(__file__).with_name("scenarios").glob("*.txt"))
GUARDED = [path for path in SCENARIOS if rule_of(path)]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_it_goes_as_written(path: Path) -> None:
    replay(path)


@pytest.mark.parametrize("path", GUARDED, ids=lambda path: path.stem)
def test_without_its_rule_it_does_not(path: Path) -> None:
    rule = rule_of(path)
    assert rule is not None
    # The member may also fail outright where the rule would have kept it from that.
    with pytest.raises((Failed, MemberFault, DecodeError)):
        replay(path, all_but(rule))


def test_every_rule_has_a_scenario() -> None:
    assert {rule_of(path) for path in GUARDED} == set(RULES)
