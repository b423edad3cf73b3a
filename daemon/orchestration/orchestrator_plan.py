"""One pass of the orchestrator: from all that is wanted and reported to the next transaction. Pure.

A plan that has been applied leads to an empty one, until something is reported or the wake-up time comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.orchestration.draft import Draft
from daemon.orchestration.drain_plan import stop_tied_tasks
from daemon.orchestration.floating_plan import place_floating_addresses
from daemon.orchestration.job_plan import plan_job
from daemon.orchestration.kinds import is_job
from daemon.orchestration.pending_plan import place_pending
from daemon.orchestration.placement_plan import resolve_image
from daemon.orchestration.removal_plan import remove_empty_apps, remove_orphans, remove_service, remove_unused_networks
from daemon.orchestration.rollout_plan import plan_service
from daemon.orchestration.sharing import shares
from daemon.orchestration.task_files import remove_unused_files
from daemon.orchestration.volume_removal_plan import remove_volumes
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


@dataclass(frozen=True)
class Plan:
    """`wake_at_unix_ms`: when to look again though nothing changed (back-off, settling); None: never.
    `more`: the bound on one transaction was reached; look again at once."""

    builder: TransactionBuilder
    wake_at_unix_ms: int | None
    more: bool


def plan(store: Store, now_unix_ms: int, new_id: Callable[[], str]) -> Plan:
    """Looks at the whole store; the cost grows with the tasks in it, not with those that change."""
    draft = Draft(store, now_unix_ms, new_id)
    nodes = {node.meta.id: node for node in store.table(objects.Node)}
    for service in sorted(store.table(objects.Service), key=_turn):
        if draft.full:
            break
        if service.removing:
            remove_service(draft, service, nodes)
        elif is_job(service.spec):
            plan_job(draft, resolve_image(draft, service), nodes)
        else:
            plan_service(draft, resolve_image(draft, service), nodes)
    stop_tied_tasks(draft, nodes)
    remove_orphans(draft, nodes)
    remove_volumes(draft)
    remove_empty_apps(draft)
    remove_unused_networks(draft)
    remove_unused_files(draft)
    place_pending(draft, nodes)
    place_floating_addresses(draft, nodes)
    return Plan(draft.builder(), draft.wake_at_unix_ms, draft.full)


def _turn(service: objects.Service) -> tuple[bool, int, str]:
    """A service whose tasks follow those of another one comes after that."""
    return shares(service.spec), service.meta.created_unix_ms, service.meta.id
