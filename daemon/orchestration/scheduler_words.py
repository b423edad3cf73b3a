"""How refusals of hosts are said, and the words that other planners look for. Pure, without the scheduler's arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

ZONE_LABEL = "zone"
PORT_TAKEN = "taken by another task"
PER_NODE_MAX = "as many as one host may have"
DEVICES_HELD = "left, as tasks hold them"


@dataclass(frozen=True)
class Refusal:
    """`kind` groups hosts that are refused for the same reason; `verb_one` and `verb_many` continue "host-1" and
    "7 hosts"; `remedy` is what would remove the reason, with {host} for the host's name; `amount` is what a host could
    offer, where more would help."""

    kind: str
    verb_one: str
    verb_many: str
    remedy: str = ""
    amount: int | None = None

    def with_amount(self, amount: int) -> Refusal:
        return replace(self, amount=amount)


def is_words(words: str, remedy: str) -> Refusal:
    """ "is down", "are down" """
    return Refusal(words, f"is {words}", f"are {words}", remedy)
