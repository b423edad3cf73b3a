"""The promises that stand between PySyncObj and the cluster's state, by name, each of which tests can take away.

A daemon always keeps all of them. The simulator (raft/simulation) and the scenarios of tests/raft switch one
off to prove that they would notice its absence; that is the only use of any other set.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

Rules = Set[str]

RULES: Final[dict[str, str]] = {
    "keep-matching-entries": "an entry that equals the leader's is never cut off the log",
    "commit-only-verified": "the commit index never passes what was compared with the leader's log",
    "refuse-bad-snapshots": "a snapshot that cannot be verified is not acknowledged",
    "pieces-in-order": "a snapshot's piece is taken once and where it belongs",
    "fence-acks-by-term": "an acknowledgement counts in the term it was given in",
    "count-votes-once": "a member's vote counts once in a term",
    "members-only": "votes and acknowledgements of who is no member do not count",
    "repeat-votes": "a candidate that asks again is told again that it has the vote",
    "answer-old-terms": "who speaks with an old term is told so",
    "keep-live-leader": "while a live leader is heard no candidate is listened to",
    "rehearse-elections": "who could not win an election does not raise the term",
    "newcomers-do-not-vote": "who knows no membership gives no vote",
    "vote-of-its-log": "who lost its log has no vote and confirms nothing until it lost its vote too",
    "commit-within-log": "a log that lost committed entries is not used",
    "total-apply": "a command that makes no sense is an answer, not an end",
    "stop-at-newer-level": "what a build does not know it does not apply: its part in consensus stops before it",
    "remember-requests": "a request that comes again has no second effect",
    "confirm-reads": "a current read waits until a majority has confirmed the leader",
    "count-own-disk": "a leader calls committed only what its own disk holds, though it sends entries before",
    "persist-before-send": "nothing is sent or answered before the disk holds what it speaks of",
}

ALL_RULES: Final[Rules] = frozenset(RULES)


def all_but(name: str) -> Rules:
    """Every rule except one; ValueError for one that does not exist."""
    if name not in RULES:
        raise ValueError(f"there is no guard rule {name!r}; there are: {', '.join(RULES)}")
    return ALL_RULES - {name}
