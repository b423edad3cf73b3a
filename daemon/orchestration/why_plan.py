"""Why a task runs nowhere yet: per host all that keeps it away, and what would help. Pure.

Asks the scheduler itself about the state as it is now, so it says what the next plan would find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from daemon import lookup
from daemon.errors import Refused
from daemon.orchestration.budget_plan import drain_waits
from daemon.orchestration.draft import Draft
from daemon.orchestration.pending_plan import Attempt, Turns, ends_for
from daemon.orchestration.placement_plan import candidate_of, held_back
from daemon.orchestration.quantities import duration_text, names_text
from daemon.orchestration.scheduler_filters import amount_text
from daemon.orchestration.scheduler_plan import Candidate, Scheduler
from daemon.orchestration.scheduler_words import Refusal
from daemon.orchestration.task_states import age_key, assigned, ended, wanted
from proto import objects_pb2 as objects
from proto import why_pb2
from raft.store import Store

PENDING_EXAMINED_MAX = 50  # tasks of one question; what is left is counted
HOSTS_TOLD_MAX = 200  # of one task; those with the least against them first


def why(store: Store, request: why_pb2.WhyRequest, now_unix_ms: int) -> why_pb2.WhyReply:
    """Of a task, or of all wanted tasks of a service; those with the same answer are one. Refused: there is none."""
    found = [task for task in lookup.find_tasks(store, request.target) if wanted(task)]
    found.sort(key=lambda task: (task.app, task.service, task.slot, task.generation))
    nodes = {node.meta.id: node for node in store.table(objects.Node)}
    draft = Draft(store, now_unix_ms, lambda: "unused")
    turns = Turns(draft, nodes)
    found.sort(key=turns.precedences.priority, reverse=True)  # stable
    reply = why_pb2.WhyReply()
    entries: dict[bytes, why_pb2.WhyTask] = {}
    examined = 0
    for task in found:
        if not assigned(task):
            examined += 1
            if examined > PENDING_EXAMINED_MAX:
                reply.left_out_count += 1
                continue
        entry = _entry(draft, turns, task, nodes)
        key = entry.SerializeToString(deterministic=True)
        entries.setdefault(key, entry).tasks.append(f"{task.app}/{task.meta.name}")
    reply.tasks.extend(entries.values())
    reply.scaled.extend(_scaled(store, found))
    return reply


def _scaled(store: Store, tasks: Iterable[objects.Task]) -> Iterator[why_pb2.WhyScaled]:
    for service_id in sorted({task.service_id for task in tasks}):
        service = store.get(objects.Service, service_id)
        if service is not None and service.spec.HasField("autoscale"):
            yield why_pb2.WhyScaled(
                service=f"{service.app}/{service.meta.name}",
                replicas=service.spec.replicas,
                autoscale=service.spec.autoscale,
                autoscaling=service.autoscaling,
            )


def _entry(draft: Draft, turns: Turns, task: objects.Task, nodes: Mapping[str, objects.Node]) -> why_pb2.WhyTask:
    entry = why_pb2.WhyTask(state=task.status.state)
    if assigned(task):
        node, service = nodes.get(task.node_id), draft.get(objects.Service, task.service_id)
        entry.node = node.meta.name if node is not None else ""
        waits = drain_waits(service, draft.tasks_of(task.service_id), nodes) if service is not None else ()
        entry.reason = next((why for held, why in waits if held.meta.id == task.meta.id), task.status.message)
        return entry
    if ended(task):
        entry.reason = task.status.message
        return entry
    service = draft.get(objects.Service, task.service_id)
    if service is None:
        entry.reason = "its service is removed"
        return entry
    if task.not_before_unix_ms > draft.now_unix_ms:
        rest = duration_text(task.not_before_unix_ms - draft.now_unix_ms)
        entry.reason = f"{task.status.message or 'it waits before the next try'} ({rest} more)"
        return entry
    turns.take_ahead(turns.precedences.priority(task))
    unit = turns.unit_of(task)
    if unit is None:
        return entry
    attempt = turns.look(unit)
    _tell(attempt, task, entry)
    entry.reason += _stopped_before(draft, task)
    reason = held_back(draft, service)
    candidate = reason if reason is not None else candidate_of(draft, service, task, nodes)
    if not attempt.rooms and not isinstance(candidate, str):
        _examine(turns.scheduler, candidate, entry)
    return entry


def _tell(attempt: Attempt, task: objects.Task, entry: why_pb2.WhyTask) -> None:
    for room in attempt.rooms:
        entry.stops.extend(ends_for(room))
    victims = [room for room in attempt.rooms if room.victims]
    if victims:
        hosts = names_text(sorted({room.node.meta.name for room in victims}), "hosts")
        whom = "it" if len(attempt.rooms) == len(attempt.placed) == 1 else "its group"
        names = names_text(sorted({name for room in victims for name in ends_for(room)}), "tasks")
        entry.reason = f"the next plan stops {names} on {hosts}, of lower priority, to make room for {whom}"
    elif attempt.reasons:
        entry.reason = attempt.reasons[task.meta.id]
    else:
        node = next(node for candidate, node, *_ in attempt.placed if candidate.task.meta.id == task.meta.id)
        entry.reason = f"it fits on {node.meta.name} now: the next plan places it"


def _stopped_before(draft: Draft, task: objects.Task) -> str:
    """Where the task before it made room for another: for which."""
    before = [other for other in draft.tasks_of(task.service_id) if other.slot == task.slot and assigned(other)]
    last = max(before, key=age_key, default=None)
    if last is None or not last.HasField("preempted"):
        return ""
    made = last.preempted
    return f"; the task before it was stopped for {made.task} (priority {made.priority} over {made.own_priority})"


def _examine(scheduler: Scheduler, candidate: Candidate, entry: why_pb2.WhyTask) -> None:
    try:
        found = scheduler.examine(candidate)
    except Refused:
        return  # whatever the hosts are: the reason says so
    found.sort(key=lambda each: len(each[1]))
    for node, refusals in found[:HOSTS_TOLD_MAX]:
        host = entry.hosts.add(node=node.meta.name)
        host.against.extend(_told(node.meta.name, refusals))
    entry.hosts_left_out_count = max(len(found) - HOSTS_TOLD_MAX, 0)


def _told(name: str, refusals: list[Refusal]) -> Iterator[why_pb2.WhyNot]:
    for refusal in refusals:
        amount = "" if refusal.amount is None else f" (it has {amount_text(refusal.kind, refusal.amount)})"
        yield why_pb2.WhyNot(reason=refusal.verb_one + amount, remedy=refusal.remedy.replace("{host}", name))
