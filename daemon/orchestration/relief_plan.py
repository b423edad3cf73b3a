"""Which task leaves a host that has been short of something for a while, or has something broken. Pure.

One after the other, a few at once, and by the rules of any move for a better balance (rebalance_plan.py): the new task
is ready before the old one stops, and what cannot be moved so stays. Where most hosts are in trouble at the same time,
or are away, moving would only carry it to the others: nothing leaves then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from daemon.host_conditions import BARRING, barring, left_since_unix_ms
from daemon.orchestration.draft import Draft
from daemon.orchestration.move_plan import begin_move
from daemon.orchestration.placement_plan import candidate_of
from daemon.orchestration.rebalance_course_plan import under_way
from daemon.orchestration.rebalance_plan import left_alone
from daemon.orchestration.scheduler_plan import Scheduler
from daemon.orchestration.task_states import age_key, wanted
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

LEAVE_AFTER_MS = 60_000  # what is over by then was not worth a move
AT_ONCE_MAX = 2
EVERY_MS = 5_000


def hosts_to_leave(nodes: Collection[objects.Node], now_unix_ms: int) -> list[objects.Node]:
    """Those that have been in trouble for long enough, the longest first; none where more than half of all are."""
    in_trouble = [node for node in nodes if node.state != objects.NODE_STATE_READY or barring(node)]
    if 2 * len(in_trouble) > len(nodes):
        return []
    found = []
    for node in in_trouble:
        since_unix_ms = left_since_unix_ms(node) if node.state == objects.NODE_STATE_READY else None
        if since_unix_ms is not None and since_unix_ms + LEAVE_AFTER_MS <= now_unix_ms:
            found.append((since_unix_ms, node.meta.name, node))
    return [node for _, _, node in sorted(found, key=lambda one: one[:2])]


def plan_relief(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> TransactionBuilder:
    """Begins the next move away from such a host, if it is time and there is one."""
    draft = Draft(store, now_unix_ms, new_id)
    nodes = {node.meta.id: node for node in store.table(objects.Node)}
    leaving = hosts_to_leave(nodes.values(), now_unix_ms)
    cluster = next(iter(store.table(objects.Cluster)), None)
    if not leaving or cluster is None or cluster.rebalancing.moved_unix_ms + EVERY_MS > now_unix_ms:
        return TransactionBuilder()
    tasks = list(draft.tasks())
    if sum(under_way(draft, task) for task in tasks) >= AT_ONCE_MAX:
        return TransactionBuilder()
    scheduler = Scheduler(nodes.values(), tasks, now_unix_ms)
    for source in leaving:
        if _move_one(draft, source, nodes, scheduler):
            draft.edit(cluster).rebalancing.moved_unix_ms = now_unix_ms
            return draft.builder().needs(WORKLOADS_LEVEL)
    return TransactionBuilder()


def _move_one(draft: Draft, source: objects.Node, nodes: Mapping[str, objects.Node], scheduler: Scheduler) -> bool:
    """The task of the lowest priority that may move and has a place, of these the youngest."""
    services: dict[str, objects.Service | None] = {}
    there = []
    for task in draft.store.table(objects.Task).by("node", source.meta.id):
        if task.service_id not in services:
            service = draft.get(objects.Service, task.service_id)
            services[task.service_id] = None if service is None or left_alone(draft, service, nodes) else service
        if wanted(task) and services[task.service_id] is not None:
            there.append(task)
    ranked = sorted(there, key=age_key, reverse=True)
    for task in sorted(ranked, key=lambda each: _priority(services[each.service_id])):
        service = services[task.service_id]
        assert service is not None
        candidate = candidate_of(draft, service, task, nodes)
        if isinstance(candidate, str):
            continue
        target = scheduler.place(candidate).node
        if target is not None and target.meta.id != source.meta.id:
            words = BARRING[barring(source)[0]][0]
            begin_move(draft, service, task.slot, target, f"{source.meta.name} has {words}")
            return True
    return False


def _priority(service: objects.Service | None) -> int:
    return service.spec.precedence.priority if service is not None else 0
