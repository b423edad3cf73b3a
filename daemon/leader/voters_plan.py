"""The next change of who votes and who leads. Pure.

An even number of voters survives no more losses than the odd number below it and is slower, so the wanted
number is the largest of 1, 3 and 5 that the hosts of role voter allow. Rules, in their order:

- a host that was removed loses its vote;
- a leader whose host is drained hands over, so that its restart costs no election;
- growing from one to three passes through two, and only begins when both newcomers are up;
- a voter that is gone for longer than the limit is replaced: the newcomer first, which shows by catching up
  that it can, then the one that is gone loses its vote;
- five voters of which two are gone become three, which can lose one again; three never become one by
  themselves, for two copies of the state are better than one;
- voters move where zones are uneven by two or more.

One step at a time, each committed before the next is thought about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from daemon.leader.feature_level_plan import known_level
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

COUNTS = (5, 3, 1)
ZONE_LABEL = "zone"


@dataclass(frozen=True)
class VoterStep:
    """One change: a vote given, a vote taken, or the leadership handed over."""

    message: str
    add: objects.Node | None = None
    remove: str = ""  # node id
    hand_over: str = ""  # node id


def wanted_count(candidates: int) -> int:
    """How many of `candidates` hosts vote: 5, 3, 1 or none."""
    return next((count for count in COUNTS if candidates >= count), 0)


def plan_voters(
    nodes: Iterable[objects.Node],
    voters: Iterable[str],
    leader_id: str,
    now_unix_ms: int,
    replace_ms: int,
    level: int = 1,
) -> VoterStep | None:
    """`voters`: node ids of the committed membership. `replace_ms`: how long a voter may be down. `level`: the
    cluster's feature level; a host whose build knows less gets no vote.

    None where all is as it should be.
    """
    known = {node.meta.id: node for node in nodes}
    current = sorted(voters)
    for node_id in current:
        if node_id not in known:
            return VoterStep(f"{node_id} was removed from the cluster and loses its vote", remove=node_id)
    handed = _hand_over(known, current, leader_id)
    if handed is not None:
        return handed
    plan = _Plan(known, current, leader_id, now_unix_ms - replace_ms, level)
    return plan.grow() or plan.shrink() or plan.replace() or plan.spread()


class _Plan:
    """The candidates sorted by what they are."""

    def __init__(
        self, known: dict[str, objects.Node], current: list[str], leader_id: str, gone_before: int, level: int
    ) -> None:
        self._known, self._current, self._leader_id = known, current, leader_id
        candidates = [
            node
            for node in known.values()
            if node.role == objects.NODE_ROLE_VOTER and known_level(node.description) >= level
        ]
        self._newcomers = [n for n in candidates if n.meta.id not in current and _is_up(n)]
        self._gone = [node_id for node_id in current if _is_gone(known[node_id], gone_before)]
        self._zones = Counter(_zone(known[node_id]) for node_id in current)
        most = wanted_count(len(current) + len(self._newcomers))
        usable = wanted_count(len(current) - len(self._gone) + len(self._newcomers))
        if len(current) == 1 or (len(current) == most == 5 and len(self._gone) == 1):
            self._wanted = most
        else:
            self._wanted = max(usable, min(most, 3))

    def grow(self) -> VoterStep | None:
        if len(self._current) >= self._wanted or not self._newcomers:
            return None
        newcomer = self._best_newcomer()
        return VoterStep(f"{newcomer.meta.name} gets a vote", add=newcomer)

    def shrink(self) -> VoterStep | None:
        others = [node_id for node_id in self._current if node_id != self._leader_id]
        if len(self._current) <= max(self._wanted, 1) or not others:
            return None
        last = max(others, key=self._dispensable)
        name = self._known[last].meta.name
        why = "it is gone" if last in self._gone else f"{self._wanted} are enough"
        return VoterStep(f"{name} loses its vote: {why}", remove=last)

    def replace(self) -> VoterStep | None:
        if not self._gone or not self._newcomers:
            return None
        newcomer, gone = self._best_newcomer(), self._known[self._gone[0]].meta.name
        return VoterStep(f"{newcomer.meta.name} gets a vote in place of {gone}, which is gone", add=newcomer)

    def spread(self) -> VoterStep | None:
        """Only where it makes zones more even: the most crowded has two more than the newcomer's."""
        if not self._newcomers or len(self._current) < 3:
            return None
        newcomer = self._best_newcomer()
        crowd = max(self._zones.values())
        if self._zones[_zone(newcomer)] + 2 > crowd:
            return None
        return VoterStep(f"{newcomer.meta.name} gets a vote, for zone {_zone(newcomer)} has too few", add=newcomer)

    def _best_newcomer(self) -> objects.Node:
        """Not about to leave, from the zone with the fewest voters, the eldest."""
        return min(
            self._newcomers,
            key=lambda node: (
                node.availability == objects.AVAILABILITY_DRAINING,
                self._zones[_zone(node)],
                node.meta.created_unix_ms,
                node.meta.id,
            ),
        )

    def _dispensable(self, node_id: str) -> tuple[bool, bool, int, bool, str]:
        node = self._known[node_id]
        draining = node.availability == objects.AVAILABILITY_DRAINING
        return (node_id in self._gone, not _is_up(node), self._zones[_zone(node)], draining, node_id)


def _hand_over(known: dict[str, objects.Node], current: list[str], leader_id: str) -> VoterStep | None:
    leader = known.get(leader_id)
    if leader is None or leader.availability != objects.AVAILABILITY_DRAINING:
        return None
    for node_id in current:
        node = known[node_id]
        if node_id != leader_id and _is_up(node) and node.availability == objects.AVAILABILITY_ACTIVE:
            return VoterStep(f"{leader.meta.name} is drained: {node.meta.name} is to lead", hand_over=node_id)
    return None


def _is_up(node: objects.Node) -> bool:
    return node.state == objects.NODE_STATE_READY


def _is_gone(node: objects.Node, gone_before_unix_ms: int) -> bool:
    return node.state == objects.NODE_STATE_DOWN and node.state_since_unix_ms <= gone_before_unix_ms


def _zone(node: objects.Node) -> str:
    """A host without the label is a zone of its own."""
    return node.meta.labels.get(ZONE_LABEL, "") or f"host {node.meta.id}"


def record_voters(store: Store, voters: Iterable[str]) -> TransactionBuilder:
    """Notes in every Node whether it votes; no operations where all is noted."""
    builder = TransactionBuilder()
    chosen = set(voters)
    for node in store.table(objects.Node):
        if node.voter != (node.meta.id in chosen):
            changed = objects.Node()
            changed.CopyFrom(node)
            changed.voter = node.meta.id in chosen
            builder.update(changed)
    return builder
