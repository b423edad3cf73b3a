"""`x-fairway.disruption_budget`: how many tasks of a service the cluster itself may take away at once."""

from __future__ import annotations

from cli.compose.reader import Field, Reader
from cli.compose.rollout import share_millionths
from proto import objects_pb2

_KEYS = frozenset({"max_unavailable", "min_available"})
_COUNT_MAX = 10_000


def read_budget(reader: Reader, field: Field, budget: objects_pb2.DisruptionBudget) -> None:
    """Fills `budget`: one of the two keys, each a number of tasks or a share of them."""
    entries = reader.known_entries(field, _KEYS)
    if len(entries) != 1:
        reader.refuse(field, "needs either max_unavailable or min_available")
        return
    for key, value in entries.items():
        count, millionths = reader.parsed(value, _amount, (0, 0))
        if key == "max_unavailable" and millionths:
            budget.unavailable_max_millionths = millionths
        elif key == "max_unavailable":
            budget.unavailable_max = count
        elif millionths:
            budget.available_min_millionths = millionths
        else:
            budget.available_min = count


def _amount(text: str) -> tuple[int, int]:
    """A number, or millionths of the tasks."""
    if text.strip().endswith("%"):
        return 0, share_millionths(text)
    if not text.strip().isdecimal() or int(text) > _COUNT_MAX:
        raise ValueError(f'{text!r} is neither a number of tasks, at most {_COUNT_MAX}, nor a share like "25%"')
    return int(text), 0
