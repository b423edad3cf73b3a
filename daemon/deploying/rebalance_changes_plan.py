"""Operators' words about rebalancing: what would be moved, beginning it, ending it, and its settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from daemon import lookup
from daemon.errors import Kind, Refused
from daemon.orchestration.draft import Draft
from daemon.orchestration.rebalance_course_plan import in_scope
from daemon.orchestration.rebalance_plan import Move, OutOfTime, left_alone, planned_moves
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

MOVES_A_MINUTE_MAX = 600
AFTER_MS_MAX = 86_400_000


def plan_rebalance(
    store: Store,
    request: control.RebalanceRequest,
    now_unix_ms: int,
    new_id: Callable[[], str],
    out_of_time: OutOfTime = lambda: False,
) -> tuple[control.RebalanceReply, TransactionBuilder]:
    """The moves as they would be made, as far as the time goes, and the transaction that begins. Raises Refused."""
    before = next(iter(store.table(objects.Cluster)), None)
    if before is None:
        raise Refused("there is no cluster", Kind.NOT_POSSIBLE)
    after = objects.Cluster()
    after.CopyFrom(before)
    service = lookup.find_service(store, request.target) if request.target else None
    reply = control.RebalanceReply()
    if request.HasField("settings"):
        _check(request.settings)
        after.rebalance.CopyFrom(request.settings)
    elif request.stop:
        _say(after.rebalancing, asked=False)
    elif not request.status_only:
        service_id = service.meta.id if service is not None else ""
        draft = Draft(store, now_unix_ms, new_id)
        nodes = {node.meta.id: node for node in store.table(objects.Node)}
        services = in_scope(store, service_id)
        moves, complete = planned_moves(draft, services, nodes, out_of_time)
        reply.moves.extend(_moves(moves))
        reply.more = not complete
        reply.left_alone.extend(_left_alone(draft, services, nodes))
        if (reply.moves or reply.more) and not request.plan_only:
            _say(after.rebalancing, asked=True)
            after.rebalancing.moves = 0
            after.rebalancing.service_id = service_id
            after.rebalancing.target = f"{service.app}/{service.meta.name}" if service is not None else ""
    reply.settings.CopyFrom(after.rebalance)
    reply.state.CopyFrom(after.rebalancing)
    builder = TransactionBuilder()
    if after != before and not request.plan_only:
        builder.needs(WORKLOADS_LEVEL).update(after)
    return reply, builder


def _say(state: objects.Rebalancing, asked: bool) -> None:
    state.asked, state.target, state.service_id = asked, "", ""


def _check(settings: objects.RebalanceSettings) -> None:
    if settings.moves_a_minute_max > MOVES_A_MINUTE_MAX:
        raise Refused(f"{settings.moves_a_minute_max} moves a minute are too many; at most {MOVES_A_MINUTE_MAX}")
    if not 0 <= settings.after_ms <= AFTER_MS_MAX:
        raise Refused("the time without a change, before tasks are moved, is negative or longer than a day")


def _moves(moves: list[Move]) -> Iterator[control.PlannedMove]:
    for move in moves:
        name = f"{move.task.app}/{move.task.meta.name}"
        source, target = move.source.meta.name, move.target.meta.name
        yield control.PlannedMove(task=name, from_node=source, to_node=target, why=move.why)


def _left_alone(draft: Draft, services: Sequence[objects.Service], nodes: Mapping[str, objects.Node]) -> Iterator[str]:
    for service in services:
        if why := left_alone(draft, service, nodes):
            yield f"{service.app}/{service.meta.name}: {why}"
