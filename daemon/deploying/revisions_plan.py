"""Earlier versions of a service: kept at each change that needs new tasks, and gone back to. Pure.

A way back is a change like any other: it counts the generation up, and tasks that still run as that version did are
taken over by it (daemon/orchestration/rollout_begin_plan.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from daemon.deploying.app_changes import as_tasks_see
from daemon.deploying.port_leases_plan import Changes, PortLeases, settle_vip
from daemon.errors import Kind, Refused
from daemon.orchestration.external_parts import network_of
from daemon.orchestration.leases import LeasePool
from daemon.orchestration.own_volumes import spec_of_slot
from daemon.orchestration.task_files import missing_files
from proto import objects_pb2 as objects
from raft.store import Store

REVISIONS_MAX = 10  # of a service, besides the present one
REVISIONS_BYTES_MAX = 256 << 10
REASON_CHARACTERS_MAX = 300
Rollout = objects.Rollout


@dataclass
class Collected:
    """Changes that are made together or, where one of them is refused, not at all."""

    created: list[Message] = field(default_factory=list)
    updated: list[Message] = field(default_factory=list)
    deleted: list[Message] = field(default_factory=list)

    def create(self, stored: Message) -> None:
        self.created.append(stored)

    def update(self, stored: Message) -> None:
        self.updated.append(stored)

    def delete(self, stored: Message) -> None:
        self.deleted.append(stored)

    def into(self, changes: Changes) -> None:
        for stored in self.created:
            changes.create(stored)
        for stored in self.updated:
            changes.update(stored)
        for stored in self.deleted:
            changes.delete(stored)


def start_rollout(
    before: objects.Service, after: objects.Service, reasons: Sequence[str], now_unix_ms: int, back_to: int = 0
) -> None:
    """`after`, whose spec is the new one, as it is when its tasks begin to be replaced. Changes it in place."""
    after.generation = before.generation + 1
    keep_revision(before, after)
    after.rollout.CopyFrom(
        Rollout(
            state=Rollout.STATE_GOING,
            generation=after.generation,
            reason="; ".join(reasons)[:REASON_CHARACTERS_MAX],
            started_unix_ms=now_unix_ms,
            back_to=back_to,
        )
    )
    if back_to:
        after.rollout.config.CopyFrom(rollback_config(before, after))


def rollback_config(before: objects.Service, after: objects.Service) -> objects.UpdateConfig:
    """How a way back goes: as the version says that is left, or else the one that is gone back to."""
    for service in (before, after):
        if service.spec.HasField("rollback"):
            return service.spec.rollback
    return objects.UpdateConfig(parallelism=1)


def keep_revision(before: objects.Service, after: objects.Service) -> None:
    """Notes in `after` what the service was; the oldest versions make room."""
    known = before.rollout if before.rollout.generation == before.generation else Rollout()
    after.revisions.add(
        generation=before.generation,
        spec=before.spec,
        image_digest=before.image_digest,
        started_unix_ms=known.started_unix_ms or before.meta.created_unix_ms,
        reason=known.reason,
        failed=known.state not in (Rollout.STATE_UNSPECIFIED, Rollout.STATE_DONE),
        back_to=known.back_to,
    )
    while len(after.revisions) > 1 and (
        len(after.revisions) > REVISIONS_MAX or sum(each.ByteSize() for each in after.revisions) > REVISIONS_BYTES_MAX
    ):
        del after.revisions[0]


def find_revision(service: objects.Service, number: int = 0) -> objects.Revision:
    """The revision of this number, or the last that worked and is not what the service is. Raises Refused."""
    name = f"{service.app}/{service.meta.name}"
    if number:
        for revision in service.revisions:
            if revision.generation == number:
                return revision
        if number == service.generation:
            raise Refused(f"{name} is at revision {number} already", Kind.NOT_POSSIBLE)
        raise Refused(f"{name} has no revision {number}; `fairway service history {name}` lists them", Kind.NOT_FOUND)
    for revision in reversed(service.revisions):
        if not revision.failed and not same_tasks(revision, service):
            return revision
    raise Refused(f"{name} has no earlier revision that worked, so there is nothing to go back to", Kind.NOT_POSSIBLE)


def same_tasks(one: objects.Revision | objects.Task, service: objects.Service) -> bool:
    """Whether tasks of a revision, or a task, are what the service's new tasks would be."""
    spec = spec_of_slot(service.spec, one.slot) if isinstance(one, objects.Task) else service.spec
    return one.image_digest == service.image_digest and as_tasks_see(one.spec) == as_tasks_see(spec)


def plan_revert(
    store: Store, leases: LeasePool, service: objects.Service, revision: objects.Revision, now_unix_ms: int, why: str
) -> tuple[objects.Service, Collected]:
    """The service on its way back, and all changes that this takes. The number of tasks stays what it is now,
    how it follows the load, and the service's labels. Raises Refused where what the revision used has another holder,
    or is gone."""
    after = objects.Service()
    after.CopyFrom(service)
    after.spec.CopyFrom(revision.spec)
    after.spec.replicas = service.spec.replicas
    after.spec.ClearField("autoscale")
    if service.spec.HasField("autoscale"):
        after.spec.autoscale.CopyFrom(service.spec.autoscale)
    after.image_digest = revision.image_digest
    start_rollout(service, after, [f"back to revision {revision.generation}"], now_unix_ms, revision.generation)
    after.rollout.message = why[:REASON_CHARACTERS_MAX]
    for name in after.spec.networks:
        if network_of(store, service.meta.tenant, service.app, after.spec, name) is None:
            raise Refused(
                f"network {name}, which revision {revision.generation} of {service.app}/{service.meta.name} used, is "
                "gone; deploy the older file instead",
                Kind.NOT_POSSIBLE,
            )
    if missing := missing_files(store, after.spec):
        raise Refused(
            f"{', '.join(missing)}, which revision {revision.generation} of {service.app}/{service.meta.name} used, is "
            "gone; deploy the older file instead",
            Kind.NOT_POSSIBLE,
        )
    changes = Collected()
    settle_vip(store, leases, changes, after)
    ports = PortLeases(store, leases)
    ports.want(after)
    ports.settle(changes, set())
    changes.update(after)
    return after, changes
