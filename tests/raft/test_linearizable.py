"""The checker of histories, by histories of which the verdict is known, and against trying all orders."""

from __future__ import annotations

import itertools
import random

import pytest

from raft.simulation.linearizable import FOREVER, Operation, TooComplex, explain


def read(start: float, end: float, value: str | None) -> Operation:
    return Operation(start, end, "read", value)


def write(start: float, end: float, value: str, succeeded: bool | None = True) -> Operation:
    return Operation(start, end, "write", value, None, succeeded)


def swap(start: float, end: float, expected: str | None, value: str, succeeded: bool | None = True) -> Operation:
    return Operation(start, end, "compare-and-set", value, expected, succeeded)


@pytest.mark.parametrize(
    ("history", "possible"),
    [
        ([], True),
        ([write(0, 1, "x"), read(2, 3, "x")], True),
        ([write(0, 1, "x"), read(2, 3, None)], False),  # a stale read
        ([write(0, 2, "x"), read(1, 3, None)], True),  # they overlap
        ([write(0, 9, "x"), read(1, 2, "x"), read(3, 4, None)], False),  # seen, and then not
        ([write(0, 1, "x"), write(0, 1, "y"), read(2, 3, "x"), read(4, 5, "y")], False),
        ([write(0, 1, "x"), write(0, 9, "y"), read(2, 3, "x"), read(4, 5, "y")], True),
        ([write(0, FOREVER, "x", None), read(5, 6, None), read(7, 8, "x")], True),  # a late effect
        ([write(0, FOREVER, "x", None), read(5, 6, "x"), read(7, 8, None)], False),
        ([swap(0, 1, None, "x"), swap(0, 1, None, "y")], False),  # both cannot win
        ([swap(0, 1, None, "x"), swap(0, 1, None, "y", False)], True),
        ([swap(0, 1, None, "x", False)], False),  # nothing stood against it
        ([write(0, 1, "x"), swap(2, FOREVER, "x", "y", None), read(3, 4, "x"), read(5, 6, "y")], True),
        ([write(0, 1, "x"), swap(2, 3, "w", "y", False), read(4, 5, "y")], False),
    ],
)
def test_verdicts(history: list[Operation], possible: bool) -> None:
    assert (explain(history) is not None) == possible


def test_it_agrees_with_trying_all_orders() -> None:
    dice = random.Random(1)
    verdicts = [0, 0]
    for _ in range(1500):
        history = [_random_operation(dice, number) for number in range(dice.randint(1, 5))]
        expected = any(_fits(order) for order in itertools.permutations(history))
        assert (explain(history) is not None) == expected, history
        verdicts[expected] += 1
    assert min(verdicts) > 200


def test_the_order_that_it_finds_is_one() -> None:
    dice = random.Random(2)
    for _ in range(200):
        history = [_random_operation(dice, number) for number in range(6)]
        order = explain(history)
        if order is not None:
            assert sorted(order, key=id) == sorted(history, key=id)
            assert _fits(tuple(order))


def test_it_gives_up_in_bounded_time() -> None:
    with pytest.raises(TooComplex):
        explain([write(0, 1, f"v{number}") for number in range(40)] + [read(2, 3, "other")], steps_max=5000)


def _random_operation(dice: random.Random, number: int) -> Operation:
    start = dice.uniform(0, 5)
    end = start + dice.uniform(0.1, 4)
    known = [None, "v0", "v1", "v2"]
    match dice.choice("rwcu"):
        case "r":
            return read(start, end, dice.choice(known))
        case "w":
            return write(start, end, f"v{number}")
        case "c":
            return swap(start, end, dice.choice(known), f"v{number}", dice.random() < 0.6)
        case _:
            return write(start, FOREVER, f"v{number}", None)


def _fits(order: tuple[Operation, ...]) -> bool:
    """Whether this order respects time and values."""
    for earlier, later in itertools.combinations(order, 2):
        if later.returned < earlier.invoked:
            return False
    value = None
    for one in order:
        if one.kind == "read" and one.value != value:
            return False
        if one.kind == "compare-and-set" and one.succeeded != (value == one.expected):
            return False
        if one.kind == "write" or (one.kind == "compare-and-set" and one.succeeded):
            value = one.value
    return True
