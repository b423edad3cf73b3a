"""Whole clusters under simulated faults: fresh seeds, and proof that a broken promise would be noticed."""

from __future__ import annotations

import itertools
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest

from raft.entry import transaction_command
from raft.requests import Propose
from raft.rules import ALL_RULES, RULES, all_but
from raft.simulation.__main__ import main
from raft.simulation.checks import Violation
from raft.simulation.cluster import Cluster
from raft.simulation.many import results
from raft.simulation.member import SimulatedMember
from raft.simulation.plan import CLASSES, REAL_FILE_EVERY, Fault, Plan, Weather, plan_of, positions_of
from raft.simulation.run import run
from raft.simulation.shrink import shrink
from raft.simulation.tally import NAMES, missing
from raft.transaction import TransactionBuilder

FRESH_SEEDS = 200
FRESH_GROUPS = 8  # so that a failure is seen early and a part can be run alone
GUARD_SEEDS_MAX = 400

# Where the search for a violation begins: near one that is known, so that it is short. Any seed would do.
FIRST_SEEDS = {
    "commit-only-verified": 11,
    "pieces-in-order": 67,
    "fence-acks-by-term": 2,
    "count-votes-once": 20,
    "members-only": 50,
    "answer-old-terms": 19,
    "commit-within-log": 35,
    "confirm-reads": 55,
    "count-own-disk": 75,
    "persist-before-send": 17,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults are reported as errors, thousands of them."""
    loggers = [logging.getLogger(name) for name in ("raft", "pysyncobj")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    """What happened in all fresh seeds together."""
    return Counter()


@pytest.mark.parametrize("group", range(FRESH_GROUPS))
def test_fresh_seeds_break_no_promise(group: int, counts: Counter[str]) -> None:
    seeds = [random.SystemRandom().randrange(10**9) for _ in range(FRESH_SEEDS // FRESH_GROUPS)]
    sys.stdout.write(f"group {group}, seeds: {' '.join(map(str, seeds))}\n")
    failed: dict[int, str] = {}
    for seed in seeds:
        result = run(plan_of(seed))
        counts.update(result.counts)
        if result.violation:
            failed[seed] = result.violation
    assert not failed, "\n".join(f"./run sim --seeds {seed} --show: {failed[seed]}" for seed in failed)


def test_every_fault_really_happens(counts: Counter[str]) -> None:
    if not counts:
        pytest.skip("the fresh seeds did not run")
    assert set(counts) <= NAMES
    # These are seldom: one seed in REAL_FILE_EVERY has files, and a write is short.
    assert set(missing(counts)) <= {name for name in NAMES if name.startswith("power cuts")}


def test_several_processes_give_the_results_of_one_in_order() -> None:
    alone = list(results(iter(range(1, 12)), ALL_RULES, 1))
    assert list(results(iter(range(1, 12)), ALL_RULES, 2)) == alone
    assert [seed for seed, _ in alone] == list(range(1, 12))
    endless = results(itertools.count(1), ALL_RULES, 2)
    assert next(endless)[0] == 1
    endless.close()


@pytest.mark.parametrize("rule", RULES)
def test_a_violation_is_found_when_a_guard_rule_is_off(rule: str) -> None:
    first = FIRST_SEEDS.get(rule, 1)
    for seed in range(first, first + GUARD_SEEDS_MAX):
        plan = _with_much_of_it(rule, plan_of(seed))
        violation = run(plan, all_but(rule)).violation
        if violation:
            assert not run(plan).violation
            sys.stdout.write(f"{rule}: seed {seed}: {violation}\n")
            return
    pytest.fail(f"{GUARD_SEEDS_MAX} seeds went well without the rule {rule!r}")


def _with_much_of_it(rule: str, plan: Plan) -> Plan:
    """More of what the rule guards against, where that seldom comes together by chance."""
    if rule == "count-votes-once" and plan.voters == 5:
        # A vote that comes twice makes a leader only where two of five votes are there and those of the others lost.
        return replace(plan, weather=replace(plan.weather, delay_seconds=(0.001, 0.3), loss=0.3, repetition=0.5))
    if rule == "fence-acks-by-term" and plan.voters == 5:
        # Late acknowledgements of a term that it led before must find the same leader again.
        comebacks = tuple(Fault(at, "comeback", plan.names[0], seconds=1.5) for at in (1.0, 4.0, 7.0))
        return replace(plan, storm_seconds=10.0, weather=Weather(), faults=comebacks)
    return plan


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in (3, 8, REAL_FILE_EVERY):
        assert run(plan_of(seed)) == run(plan_of(seed))


def test_state_in_real_files_survives_torn_writes() -> None:
    every = range(REAL_FILE_EVERY, REAL_FILE_EVERY * 40, REAL_FILE_EVERY)
    seeds = [seed for seed in every if "cut-in-write" in plan_of(seed).classes][:8]
    torn = 0
    for seed in seeds:
        plan = plan_of(seed)
        assert plan.real_files
        result = run(plan)
        assert not result.violation, f"./run sim --seeds {seed}"
        torn += result.counts["power cuts that tore files"]
    assert torn


@pytest.mark.parametrize("false_commit", [False, True])
def test_what_a_turn_committed_is_judged_though_a_power_cut_ends_it(false_commit: bool) -> None:
    calm = replace(plan_of(1, CLASSES), names="abc", voters=3, drift=dict.fromkeys("abc", 1.0))
    cluster = Cluster(calm)
    events = cluster.events
    assert events.run_until(10.0, lambda: cluster.leader() is not None and cluster.checks.commit_index == 3)
    leader = cluster.leader()
    assert leader is not None and leader.driver is not None
    for other in set("abc") - {leader.name}:
        cluster.network.block(leader.name, other, 9.0, held=False)
    cluster.ask(leader.name, Propose("", transaction_command(TransactionBuilder().build("nobody has it", "test", 1))))
    events.run_until(events.now + 0.05)
    assert leader.disk.log().keys() >= {4}
    if false_commit:
        leader.driver.consensus.algorithm.committed(4)
    leader.disk.cut_in_statements = 1
    cluster.ask(leader.name, Propose("", transaction_command(TransactionBuilder().build("next", "test", 1))))
    with pytest.raises(Violation, match="entry 4 that only") if false_commit else nullcontext():
        events.run_until(events.now + 0.05)
    assert cluster.counts["power cuts"] == 1
    cluster.close()


@pytest.mark.parametrize("broken", [False, True])
def test_parts_of_chains_stand_or_fall_together_and_it_would_be_noticed(
    broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken:
        monkeypatch.setattr("raft.requests.resolved", lambda transaction, _indexes: transaction)
    fair = plan_of(1, set(CLASSES) - {"chain"})
    result = run(replace(fair, classes=fair.classes | {"chain"}))
    if broken:
        assert "a part of a chain, failed though nothing came between" in result.violation
    else:
        assert not result.violation and result.counts["parts of chains acknowledged"] > 20


@pytest.mark.parametrize("disks", [1, 2])
def test_only_a_run_without_a_majority_of_disks_may_stand_still(disks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_disk(cluster: Cluster, member: SimulatedMember, seconds: float) -> bool:
        cluster.power_cut(member, seconds)
        member.lose_disk()
        return True

    monkeypatch.setattr(Cluster, "lose_disk", lose_disk)
    faults = tuple(Fault(3.0, "disk-lost", name, seconds=0.1) for name in "ab"[:disks])
    result = run(replace(plan_of(1, CLASSES), names="abc", voters=3, drift=dict.fromkeys("abc", 1.0), faults=faults))
    assert not result.violation
    assert result.counts["runs that lost a majority's disks"] == (disks == 2)


def test_fine_weather_begins_when_lost_disks_are_repaired() -> None:
    """Until then a stranger's call for votes finds one that hears no leader, and in whose newer term it ends."""
    away = set(CLASSES) - {"pause", "disk-lost", "stranger", "versions"}
    result = run(plan_of(5086, away, (0, 4, 7, 8)))
    assert not result.violation
    assert result.counts["disks of voters lost"] == 1


def test_a_seed_fixes_the_plan_and_taking_faults_away_leaves_the_rest() -> None:
    plan = plan_of(5)
    assert plan == plan_of(5)
    kept = positions_of(plan)[1:3]
    assert plan_of(5, (), kept).faults == tuple(plan.faults[position] for position in kept)
    kind = plan.faults[0].kind
    fewer = plan_of(5, (kind,))
    assert fewer.faults == tuple(fault for fault in plan.faults if fault.kind != kind)
    assert (fewer.settings, fewer.names) == (plan.settings, plan.names)


def test_shrinking_keeps_what_the_violation_needs() -> None:
    seed = next(seed for seed in range(1000) if len(plan_of(seed).faults) > 12)
    needed = plan_of(seed).faults[7]

    def violation_of(plan: Plan) -> str:
        return "it broke" if needed in plan.faults else ""

    found = shrink(seed, violation_of)
    assert found.plan(seed).faults == (needed,)
    assert set(found.without) >= set(CLASSES) & plan_of(seed).classes - {needed.kind}
    with pytest.raises(ValueError, match="does not fail"):
        shrink(seed, lambda _plan: "")


def test_the_command_says_how_to_run_a_failing_seed_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1..20", "--guard-off", "keep-matching-entries"]) == 1
    said = capsys.readouterr().out
    assert re.search("again:  ./run sim --seeds [0-9]+ --guard-off keep-matching-entries --show", said)
    again = next(line for line in said.splitlines() if "fewer:" in line).split("./run sim ")[1].split()
    assert main(again) == 1
    assert "VIOLATION" in capsys.readouterr().out
    assert main(["--seeds", "4..5"]) == 0
    assert "no promise was broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [["--seeds", "9..1"], ["--seeds", "x"], ["--guard-off", "none"], ["--without", "x"], []]
)
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
