"""When a move is begun: what was asked for and what is set, one move after the other, never too many at once. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from daemon.orchestration.draft import Draft
from daemon.orchestration.move_plan import READY_MS_MAX, begin_move, moves, wanted_at_all
from daemon.orchestration.rebalance_plan import Balance, OutOfTime
from daemon.orchestration.task_states import assigned, ended, settled, wanted
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

MOVES_A_MINUTE_MAX = 10  # where the cluster says nothing else
AFTER_MS = 60_000  # by itself: nothing has changed for so long
MOVES_AT_ONCE_MAX = 4

Name = tuple[str, str, str]


@dataclass(frozen=True)
class Round:
    """One walk over all services, in as many looks as its time takes: the name of the last that was looked at, and
    whether a move was begun on the way."""

    after: Name = ("", "", "")
    moved: bool = False


@dataclass(frozen=True)
class Look:
    """`again_unix_ms`: a look before that is of no use. `round`: where the next one goes on."""

    builder: TransactionBuilder
    again_unix_ms: int
    round: Round


def plan_rebalancing(
    store: Store, now_unix_ms: int, new_id: Callable[[], str], round_: Round, out_of_time: OutOfTime
) -> Look:
    """Begins the next move if it is time; ends what was asked for when a whole round has found nothing to move.
    `out_of_time`: the rest is for the next look."""
    draft = Draft(store, now_unix_ms, new_id)
    for cluster in store.table(objects.Cluster):
        if wanted_at_all(cluster):
            again, after = _look(draft, cluster, round_, out_of_time)
            builder = draft.builder()
            return Look(builder.needs(WORKLOADS_LEVEL) if len(builder) else builder, again, after)
    return Look(TransactionBuilder(), now_unix_ms, Round())


def _look(draft: Draft, cluster: objects.Cluster, round_: Round, out_of_time: OutOfTime) -> tuple[int, Round]:
    now, state = draft.now_unix_ms, cluster.rebalancing
    pause_ms = 60_000 // (cluster.rebalance.moves_a_minute_max or MOVES_A_MINUTE_MAX)
    if state.moved_unix_ms + pause_ms > now:
        return state.moved_unix_ms + pause_ms, round_
    tasks = list(draft.tasks())
    moving = [task for task in tasks if under_way(draft, task)]
    if len(moving) >= MOVES_AT_ONCE_MAX:
        return now, round_
    nodes = {node.meta.id: node for node in draft.store.table(objects.Node)}
    after_ms = 0 if state.asked else cluster.rebalance.after_ms or AFTER_MS
    if not state.asked and not _quiet(draft, tasks, nodes.values(), after_ms):
        return now, round_
    services = in_scope(draft.store, state.service_id if state.asked else "")
    balance = Balance(draft, nodes)
    for service in services:
        if name_key(service) <= round_.after:
            continue
        move = balance.best_move(service, now - after_ms)
        if move is not None:
            begin_move(draft, service, move.task.slot, move.target, f"better balance: {move.why}")
            edited = draft.edit(cluster).rebalancing
            edited.moved_unix_ms, edited.moves = now, edited.moves + 1
            return now + pause_ms, Round(round_.after, True)
        if out_of_time():
            return now, Round(name_key(service), round_.moved)
    if state.asked and not moving and not round_.moved:
        edited = draft.edit(cluster).rebalancing
        edited.asked, edited.target, edited.service_id = False, "", ""
    return now, Round(moved=bool(moving))


def name_key(service: objects.Service) -> Name:
    """Sorts services by their names."""
    return (service.app, service.meta.name, service.meta.id)


def in_scope(store: Store, service_id: str) -> Sequence[objects.Service]:
    """One service, or all in the order of their names."""
    if service_id:
        service = store.get(objects.Service, service_id)
        return [service] if service is not None else []
    return sorted(store.table(objects.Service), key=name_key)


def under_way(draft: Draft, task: objects.Task) -> bool:
    """It is not ready yet, or what it takes over from has not ended."""
    now = draft.now_unix_ms
    if not moves(task) or not wanted(task) or task.meta.created_unix_ms + READY_MS_MAX <= now:
        return False
    if not settled(task, now):
        return True
    others = (other for other in draft.tasks_of(task.service_id) if other.slot == task.slot)
    return any(other.meta.id != task.meta.id and not ended(other) for other in others)


def _quiet(draft: Draft, tasks: Sequence[objects.Task], nodes: Iterable[objects.Node], after_ms: int) -> bool:
    """No host has come or gone lately, and no task waits for one."""
    if any(node.state_since_unix_ms > draft.now_unix_ms - after_ms for node in nodes):
        return False
    return not any(wanted(task) and not assigned(task) for task in tasks)
