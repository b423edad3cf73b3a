"""Which hosts are up: from when each was last heard of to what the store should say. Pure.

Times named `_s` are seconds of this leader's waking time. A fresh leader has heard of nobody yet, so every host
has the whole limit from the leader's start; only of the leader before it is it known when it was last heard
(as a voter), and that one gets no more than its limit from then.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from daemon.orchestration.task_plan import mark_lost
from daemon.orchestration.task_states import ended
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


def plan_liveness(
    store: Store,
    last_heard_s: Mapping[str, float],
    started_s: float,
    now_s: float,
    host_down_s: float,
    now_unix_ms: int,
    kept_out: Mapping[str, str] = MappingProxyType({}),
) -> TransactionBuilder:
    """Marks hosts ready or down, and with a host that goes down its tasks lost, in one transaction.

    `last_heard_s`: node id -> when; `started_s`: when this leader took office; `kept_out`: node id -> why its
    session is refused, in words."""
    builder = TransactionBuilder()
    for node in store.table(objects.Node):
        heard_s = last_heard_s.get(node.meta.id)
        # Heard before this leader's time in office: as a voter, which says that the host was up but not
        # that its tasks are known, so it can make the host down and never ready.
        in_session = heard_s is not None and heard_s >= started_s
        silent_s = now_s - (started_s if heard_s is None else heard_s)
        if silent_s > host_down_s:
            why = kept_out.get(node.meta.id, f"not heard of for more than {host_down_s:g} s")
            if node.state != objects.NODE_STATE_DOWN:
                _mark_down(store, builder, node, why, now_unix_ms)
            elif node.state_message != why and node.meta.id in kept_out:
                explained = objects.Node()
                explained.CopyFrom(node)
                explained.state_message = why
                builder.update(explained)
        elif in_session and node.state != objects.NODE_STATE_READY:
            _mark_ready(builder, node, now_unix_ms)
    return builder


def _mark_ready(builder: TransactionBuilder, node: objects.Node, now_unix_ms: int) -> None:
    after = objects.Node()
    after.CopyFrom(node)
    after.state = objects.NODE_STATE_READY
    after.state_since_unix_ms = now_unix_ms
    missing = node.description.missing_features
    after.state_message = f"lacks {'; '.join(missing)}" if missing else ""
    builder.update(after)


def _mark_down(store: Store, builder: TransactionBuilder, node: objects.Node, why: str, now_unix_ms: int) -> None:
    after = objects.Node()
    after.CopyFrom(node)
    after.state = objects.NODE_STATE_DOWN
    after.state_since_unix_ms = now_unix_ms
    after.state_message = why
    builder.update(after)
    for task in store.table(objects.Task).by("node", node.meta.id):
        if not ended(task):
            lost = objects.Task()
            lost.CopyFrom(task)
            mark_lost(lost, f"host {node.meta.name} is down")
            builder.update(lost)
