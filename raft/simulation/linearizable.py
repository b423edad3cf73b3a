"""Whether what several clients saw of one register could have happened one operation after the other.

The search of Wing and Gong (Testing and verifying concurrent objects, 1993) with the memory of Lowe (Testing for
linearizability, 2017): operations are put in order one by one, only those that may come first are tried, and
a set of operations done that led to the same value before is not tried again. Registers are independent, so
each is judged alone (locality, Herlihy and Wing 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

STEPS_MAX = 2_000_000
FOREVER = float("inf")

Kind = Literal["read", "write", "compare-and-set"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on a register; values are unique strings, None is its value before the first write.

    `value`: what was read or is to be written. `expected`: what a compare-and-set demands. `succeeded` is None
    and `returned` FOREVER where the outcome is not known; a read of unknown outcome says nothing: leave it out.
    """

    invoked: float
    returned: float
    kind: Kind
    value: str | None
    expected: str | None = None
    succeeded: bool | None = True


class TooComplex(Exception):
    """The search was given up; nothing is known."""


def explain(operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> list[Operation] | None:
    """An order in which it could have happened, or None where there is none. TooComplex after `steps_max`."""
    pending = sorted(operations, key=lambda one: one.invoked)
    total = len(pending)
    done, value = 0, None
    tried: set[tuple[int, str | None]] = set()
    order: list[tuple[int, str | None, list[int]]] = []  # (operation, value before it, what else to try)
    choices = _may_be_next(pending, done)
    for _ in range(steps_max):
        if len(order) == total:
            return [pending[position] for position, _, _ in order]
        while choices:
            position = choices.pop()
            legal, after = _step(pending[position], value)
            if legal and (done | 1 << position, after) not in tried:
                break
        else:
            if not order:
                return None
            position, value, choices = order.pop()
            done &= ~(1 << position)
            continue
        order.append((position, value, choices))
        done |= 1 << position
        value = after
        tried.add((done, value))
        choices = _may_be_next(pending, done)
    raise TooComplex(f"{total} operations on one register")


def _may_be_next(pending: Sequence[Operation], done: int) -> list[int]:
    """Operations not done that began before any other of them had ended; the one that ends first comes last."""
    first_end = FOREVER
    found: list[int] = []
    start = ((done + 1) & ~done).bit_length() - 1  # all before it are done
    for position in range(start, len(pending)):
        one = pending[position]
        if one.invoked > first_end:
            break
        if not done >> position & 1:
            first_end = min(first_end, one.returned)
            found.append(position)
    found = [position for position in found if pending[position].invoked <= first_end]
    found.sort(key=lambda position: pending[position].returned, reverse=True)
    return found


def _step(one: Operation, value: str | None) -> tuple[bool, str | None]:
    """Whether it may happen now, and the value after it."""
    if one.kind == "read":
        return value == one.value, value
    if one.kind == "write":
        return True, one.value
    fits = value == one.expected
    if one.succeeded is not None and one.succeeded != fits:
        return False, value
    return True, one.value if fits else value
