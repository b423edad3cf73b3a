"""The cluster's way from one way of sending to another without losing a packet: one safe step at a time. Pure.

Hosts send by one way (an epoch of keys, or 0: in the clear) and receive by one or two. The steps and their conditions:

    take    a way is added to those received     nobody sends by it yet
    switch  hosts send by it                     every host that is up takes it, has told its key and knows the others'
    drop    the former way is received no more   every host that is up sends by the new one, for a while

Invariants: what is sent by is among what is received; two ways are received at most; a step is made only when every
host that is up has acknowledged the step before; an epoch's number never comes back, and two that are received at the
same time are an even and an odd one (each has a device of its own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.leader.liveness_plan import host_is_up
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

KEY_AGE_MS_DEFAULT = 7 * 24 * 3600 * 1000
KEY_AGE_MS_MIN = 60 * 1000
DROP_AFTER_MS = 3_000  # for packets that are still under way
CLEAR = 0


@dataclass(frozen=True)
class Way:
    """`objects.EncryptionState` as a value."""

    sending: int = CLEAR
    receiving: tuple[int, ...] = (CLEAR,)
    epoch_last: int = 0

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(epoch for epoch in self.receiving if epoch != self.sending)


def way_of(state: objects.EncryptionState) -> Way:
    return Way(state.sending, tuple(state.receiving) or (CLEAR,), state.epoch_last)


def plan_encryption(store: Store, acknowledged_revision: int, now_unix_ms: int) -> TransactionBuilder:
    """The next step, if there is one that is safe now. `acknowledged_revision`: every host that is up stands there."""
    builder = TransactionBuilder()
    for cluster in store.table(objects.Cluster):
        way, goal = way_of(cluster.encryption), goal_of(cluster, now_unix_ms)
        if goal == way.sending and not way.others:
            continue
        nodes = nodes_up(store)
        follows = acknowledged_revision >= revision_to_follow(cluster, nodes)
        rested = now_unix_ms - cluster.encryption.sending_since_unix_ms >= DROP_AFTER_MS
        after = step(way, goal, follows=follows, rested=rested, ready=not not_ready(nodes, goal, way.sending))
        if after is not None:
            builder.update(_at(cluster, after, now_unix_ms))
    return builder


def goal_of(cluster: objects.Cluster, now_unix_ms: int) -> int:
    """By which way hosts should send; a number that is not in use yet where new keys are due."""
    way, state = way_of(cluster.encryption), cluster.encryption
    if cluster.network.encryption != objects.ENCRYPTION_WIREGUARD:
        return CLEAR
    coming = [epoch for epoch in way.others if epoch > way.sending]
    if coming:
        return coming[0]
    key_age_ms_max = cluster.network.key_age_ms_max or KEY_AGE_MS_DEFAULT
    if way.sending and not state.rotation_asked and now_unix_ms - state.sending_since_unix_ms < key_age_ms_max:
        return way.sending
    return way.sending if way.sending and way.others else next_epoch(way)


def next_epoch(way: Way) -> int:
    """Never used before, and of the other kind than the one that is sent by."""
    epoch = way.epoch_last + 1
    return epoch + 1 if way.sending and epoch % 2 == way.sending % 2 else epoch


def step(way: Way, goal: int, *, follows: bool, rested: bool, ready: bool) -> Way | None:
    """The next step towards sending by `goal`; None where there is nothing to do, or it is to be waited for.

    `follows`: every host that is up acknowledged `way` and the keys of the others; `rested`: hosts have sent by
    `way.sending` long enough; `ready`: every host that is up has a key of `goal`."""
    if not follows:
        return None
    if goal == way.sending:
        # A way that nobody has sent by since may go at once.
        never_used = all(epoch > way.sending for epoch in way.others) and way.sending != CLEAR
        return _without_others(way) if way.others and (rested or never_used) else None
    if goal in way.receiving:
        return Way(goal, way.receiving, way.epoch_last) if ready else None
    if way.others:
        return _without_others(way) if rested else None
    return Way(way.sending, (way.sending, goal), max(way.epoch_last, goal))


def _without_others(way: Way) -> Way:
    return Way(way.sending, (way.sending,), way.epoch_last)


def nodes_up(store: Store) -> list[objects.Node]:
    return [node for node in store.table(objects.Node) if host_is_up(node)]


def revision_to_follow(cluster: objects.Cluster, nodes: Sequence[objects.Node]) -> int:
    """Who stands here knows the last step and every key."""
    return max([cluster.meta.version, *(node.meta.version for node in nodes)])


def not_ready(nodes: Sequence[objects.Node], goal: int, sending: int) -> list[objects.Node]:
    """Hosts that could not be reached, or not send, by `goal`.

    One that cannot encrypt keeps a cluster from beginning to, which would cut it off; it does not keep one that
    does from changing its keys, for it is cut off already."""
    if goal == CLEAR:
        return []
    return [
        node
        for node in nodes
        if goal not in {key.epoch for key in node.network.keys}
        and not (sending != CLEAR and node.network.encryption_problem)
    ]


def _at(cluster: objects.Cluster, way: Way, now_unix_ms: int) -> objects.Cluster:
    after = objects.Cluster()
    after.CopyFrom(cluster)
    state = after.encryption
    if state.sending != way.sending:
        state.sending_since_unix_ms = now_unix_ms
        state.rotation_asked = False
    state.sending, state.epoch_last, state.changed_unix_ms = way.sending, way.epoch_last, now_unix_ms
    del state.receiving[:]
    state.receiving.extend(way.receiving)
    return after


def state_at_start(settings: objects.NetworkSettings, now_unix_ms: int) -> objects.EncryptionState:
    """Of a new cluster: one that is to encrypt never sends in the clear."""
    if settings.encryption != objects.ENCRYPTION_WIREGUARD:
        return objects.EncryptionState()
    return objects.EncryptionState(
        sending=1, receiving=[1], epoch_last=1, sending_since_unix_ms=now_unix_ms, changed_unix_ms=now_unix_ms
    )
