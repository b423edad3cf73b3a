"""Which backend a connection to a service gets, as a list of slots of which the kernel draws one; pure.

The list is made per host, since nearness counts, and names endpoints, not addresses: one list does for IPv4 and IPv6.
The kernel draws a slot at random, in turn or by a hash of the client's address (`draw_of`), each slot as often as any
other, so weights are numbers of slots.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache

from net.model import Balance, Endpoint, Host

RANDOM, TURN, HASH = "random", "turn", "hash"
_DRAWS = {
    "random": RANDOM,
    "round-robin": TURN,
    "weighted": RANDOM,
    "source-hash": HASH,
    "least-loaded": RANDOM,
}
WEIGHTED_SLOTS_MAX = 256  # or one a backend, where there are more backends
# Slots of source-hash: one number whatever the count of backends, since another moves every client. 16 and more a
# backend keep their shares within about a quarter of each other.
HASH_SLOTS = 4096


def draw_of(balance: Balance) -> str:
    """How the kernel draws a slot. ValueError for a policy that does not exist."""
    try:
        return _DRAWS[balance.policy]
    except KeyError:
        raise ValueError(f"{balance.policy!r} is no balancing policy; there are {', '.join(_DRAWS)}") from None


def slots(balance: Balance, endpoints: Iterable[Endpoint], local: Host) -> tuple[Endpoint, ...]:
    """The ready endpoints, each in as many slots as its share; empty where none is ready."""
    ready = sorted((each for each in endpoints if each.ready), key=_by_task)
    if not ready:
        return ()
    if balance.local_first:
        ready = _nearest(ready, local)
    match balance.policy:
        case "weighted" | "least-loaded":
            return _weighted(ready)
        case "source-hash":
            return _hashed(ready)
        case "round-robin":
            first = local.ordinal % len(ready)  # so that not all hosts begin with the same backend
            return (*ready[first:], *ready[:first])
    return tuple(ready)


def _by_task(endpoint: Endpoint) -> str:
    return endpoint.task_id


def _nearest(ready: list[Endpoint], local: Host) -> list[Endpoint]:
    """Those on this host, else those in its zone, else all. A host without a zone shares none."""
    here = [each for each in ready if each.node_id == local.node_id]
    if here or not local.zone:
        return here or ready
    return [each for each in ready if each.zone == local.zone] or ready


def _weighted(ready: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Slots in the proportion of the weights: exactly, where few enough do, else by the largest remainder."""
    weights = [max(each.weight, 1) for each in ready]
    divisor = math.gcd(*weights)
    counts = [weight // divisor for weight in weights]
    if sum(counts) > max(WEIGHTED_SLOTS_MAX, len(ready)):
        counts = apportioned(weights, max(WEIGHTED_SLOTS_MAX, len(ready)))
    return tuple(each for each, count in zip(ready, counts, strict=True) for _ in range(count))


def apportioned(weights: Sequence[int], total: int) -> list[int]:
    """`total` seats by weight: one each, the rest by the largest remainder (Hamilton). `total` >= len(weights)."""
    rest, whole = total - len(weights), sum(weights)
    seats = [1 + rest * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda at: (-(rest * weights[at] % whole), at))
    for at in by_remainder[: total - sum(seats)]:
        seats[at] += 1
    return seats


def _hashed(ready: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Each slot goes to the endpoint with the highest score for it (rendezvous hashing: Thaler, Ravishankar, "Using
    name-based mappings to increase hit rates", 1998), so one that comes or goes moves its own slots only."""
    columns = zip(*(_scores(each.task_id) for each in ready), strict=True)
    return tuple(ready[column.index(max(column))] for column in columns)


@lru_cache(maxsize=2048)
def _scores(task_id: str) -> array[int]:
    return array("I", hashlib.shake_128(task_id.encode()).digest(4 * HASH_SLOTS))
