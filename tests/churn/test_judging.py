"""The churn's judgement finds what stays behind, and takes nothing else for it."""

from __future__ import annotations

import pytest

from tests.churn import judging
from tests.churn.inventory import LOG_FOLDERS, MEMORY, TASK_RECORDS, Inventory

COUNTS = {"links of kind veth": 5, "processes": 40, "fairwayd descriptors: socket": 30, MEMORY: 100_000}


def inventory(process: int = 7, **changes: int) -> Inventory:
    counts = COUNTS | {TASK_RECORDS: 20, LOG_FOLDERS: 10}
    counts |= {name.replace("_", " "): count for name, count in changes.items()}
    return Inventory("host-1", 5, {"host-1": process}, {"host-1": counts})


def leaks(now: Inventory, slots: int = 5) -> list[str]:
    return judging.leaks(inventory(), now, slots)


def test_the_same_again_is_no_leak() -> None:
    assert leaks(inventory()) == []


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({"links_of_kind_veth": 6}, 5),
        ({"connections_answered_by_nobody": 1}, 5),
        ({"folders_of_logs": 21}, 5),
        ({"folders_of_logs": 1}, 0),
        ({"processes": 67}, 5),
        ({"processes": 48}, 0),
        ({"process": 8}, 5),
    ],
)
def test_one_more_of_anything_that_lasts_is_a_leak(changes: dict[str, int], slots: int) -> None:
    none = {"folders_of_logs": 0, "stored_rows:_tasks": 0} if slots == 0 else {}
    assert len(leaks(inventory(**{**none, **changes}), slots)) == 1


@pytest.mark.parametrize("changes", [{"processes": 45}, {"links_of_kind_veth": 4}, {"folders_of_logs": 20}])
def test_what_comes_and_goes_or_is_bounded_is_none(changes: dict[str, int]) -> None:
    assert leaks(inventory(**changes)) == []


def test_memory_may_grow_by_a_tenth() -> None:
    assert judging.grown_memory([inventory(), inventory(fairwayd_resident_memory=109_000)]) == []
    assert len(judging.grown_memory([inventory(), inventory(fairwayd_resident_memory=111_000)])) == 1


def test_memory_is_compared_with_when_the_kept_log_was_full() -> None:
    filling, full = (
        inventory(raft_log_entries=4_000),
        inventory(raft_log_entries=4_100, fairwayd_resident_memory=120_000),
    )
    later = inventory(raft_log_entries=4_100, fairwayd_resident_memory=131_000)
    leaking = inventory(raft_log_entries=4_100, fairwayd_resident_memory=133_000)
    assert judging.grown_memory([filling, full, later]) == []
    assert len(judging.grown_memory([filling, full, leaking])) == 1
    assert len(judging.grown_memory([filling, filling, later])) == 1  # not with itself
    assert len(judging.grown_memory([filling, inventory(fairwayd_resident_memory=120_000)])) == 1
