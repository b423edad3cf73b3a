"""Which hosts are up: from when each was last heard of to what the store should say. Pure.

Silence of fairwayd is not yet that of its host. A host whose kernel still answers has lost its daemon only, to a
crash, an upgrade or a lack of CPU: its containers run and its balancers work, and what would be gained by replacing
all of its tasks is lost twice when the daemon is back a moment later. So it counts as silent first, for a limit of
its own: it keeps its tasks and gets no new ones.

Times named `_s` are seconds of this leader's waking time. A fresh leader has heard of nobody yet, so every host
has the whole limit from the leader's start; only of the leader before it is it known when it was last heard
(as a voter), and that one gets no more than its limit from then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon.orchestration.task_plan import mark_lost
from daemon.orchestration.task_states import ended
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


@dataclass(frozen=True)
class Limits:
    """Silence after which a host is down: `down_s` where nothing answers there, `restart_s` where its kernel does."""

    down_s: float
    restart_s: float


@dataclass(frozen=True)
class Signs:
    """What there is of hosts, by node id: `last_heard_s` a report, `answered_s` an answer of the kernel. `started_s`:
    when this leader took office; `kept_out`: why the host's session is refused, in words."""

    last_heard_s: Mapping[str, float]
    started_s: float
    answered_s: Mapping[str, float] = field(default_factory=dict)
    kept_out: Mapping[str, str] = field(default_factory=dict)

    def silent_s(self, node_id: str, now_s: float) -> float:
        """For how long the host has not reported."""
        return now_s - self.last_heard_s.get(node_id, self.started_s)

    def in_session(self, node_id: str) -> bool:
        """Heard in this leader's time in office. Before it: as a voter, which says that the host was up but not
        that its tasks are known, so it can make the host down and never ready."""
        return self.last_heard_s.get(node_id, float("-inf")) >= self.started_s


def plan_liveness(store: Store, signs: Signs, limits: Limits, now_s: float, now_unix_ms: int) -> TransactionBuilder:
    """Marks hosts ready, silent or down, and with a host that goes down its tasks lost, in one transaction."""
    builder = TransactionBuilder()
    for node in store.table(objects.Node):
        state, why = _judged(node, signs, limits, now_s)
        if state == node.state and (why == node.state_message or node.meta.id not in signs.kept_out):
            continue
        after = objects.Node()
        after.CopyFrom(node)
        after.state_message = why
        if state != node.state:
            after.state, after.state_since_unix_ms = state, now_unix_ms
        builder.update(after)
        if state == objects.NODE_STATE_DOWN != node.state:
            _lose_tasks(store, builder, node)
    return builder


def falling_silent(store: Store, signs: Signs, limits: Limits, now_s: float) -> list[objects.Node]:
    """Hosts that have been silent for half of what makes them down, and are not down: whose kernels are to be asked."""
    return [
        node
        for node in store.table(objects.Node)
        if host_is_up(node) and signs.silent_s(node.meta.id, now_s) > limits.down_s / 2
    ]


def host_is_up(node: objects.Node) -> bool:
    """Whether its containers and its data plane count as working."""
    return node.state in (objects.NODE_STATE_READY, objects.NODE_STATE_SILENT)


def _judged(node: objects.Node, signs: Signs, limits: Limits, now_s: float) -> tuple[objects.NodeState.ValueType, str]:
    """The state that the host is in, and why."""
    node_id = node.meta.id
    silent_s = signs.silent_s(node_id, now_s)
    if silent_s <= limits.down_s:
        if signs.in_session(node_id):
            missing = node.description.missing_features
            return objects.NODE_STATE_READY, f"lacks {'; '.join(missing)}" if missing else ""
        return node.state, node.state_message
    if node_id in signs.kept_out:
        return objects.NODE_STATE_DOWN, signs.kept_out[node_id]
    answered = now_s - signs.answered_s.get(node_id, float("-inf")) <= limits.down_s
    if not answered or not host_is_up(node):
        return objects.NODE_STATE_DOWN, f"not heard of for more than {limits.down_s:g} s"
    if silent_s > limits.restart_s:
        return objects.NODE_STATE_DOWN, f"the host answers, its fairwayd does not for more than {limits.restart_s:g} s"
    return objects.NODE_STATE_SILENT, "the host answers, its fairwayd does not"


def _lose_tasks(store: Store, builder: TransactionBuilder, node: objects.Node) -> None:
    for task in store.table(objects.Task).by("node", node.meta.id):
        if not ended(task):
            lost = objects.Task()
            lost.CopyFrom(task)
            mark_lost(lost, f"host {node.meta.name} is down")
            builder.update(lost)
