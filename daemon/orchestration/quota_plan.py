"""Tenants' quotas: what is in use, and whether a task, a port or a volume more is allowed. Pure.

A task counts from when it has a host until it has ended, whatever the host thinks of it. Tasks of one slot that take
over from each other are one, as large as the larger of them: an update or a drain needs no room in the quota. The two
sides of a blue/green change are two, for they may stay beside each other for long. A quota that is lowered below what
is in use stops nothing, and nothing more is placed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from daemon.errors import Kind, Refused
from daemon.orchestration.draft import Draft
from daemon.orchestration.quantities import bytes_text, cpu_text
from daemon.orchestration.task_states import assigned, ended
from proto import objects_pb2 as objects
from raft.store import Store

MIB = 1 << 20
Key = tuple[str, int, int, int]  # service, slot, run, and of a blue/green change the version


@dataclass(frozen=True)
class Use:
    """Of a tenant, or of a slot."""

    tasks: int = 0
    cpu_millis: int = 0
    memory_bytes: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(self.tasks + other.tasks, self.cpu_millis + other.cpu_millis, self.memory_bytes + other.memory_bytes)

    def beyond(self, other: Use) -> Use:
        """What this is more than `other`."""
        return Use(self.tasks - other.tasks, self.cpu_millis - other.cpu_millis, self.memory_bytes - other.memory_bytes)

    def or_more(self, other: Use) -> Use:
        return Use(
            max(self.tasks, other.tasks),
            max(self.cpu_millis, other.cpu_millis),
            max(self.memory_bytes, other.memory_bytes),
        )


NOTHING = Use()


class Quotas:
    """What tenants that have a quota use, as one plan goes on. Costs next to nothing where there is none."""

    def __init__(self, tenants: Iterable[objects.Tenant], tasks: Iterable[objects.Task]) -> None:
        self._quotas = {tenant.meta.name: tenant.quota for tenant in tenants if tenant.HasField("quota")}
        self._used: dict[str, Use] = dict.fromkeys(self._quotas, NOTHING)
        self._slots: dict[Key, Use] = {}
        self._log: list[tuple[str, Key, Use, Use]] = []  # tenant, slot, and what both were before
        if self._quotas:
            for task in tasks:
                if assigned(task) and not ended(task):
                    self.take(task)
        self._log.clear()

    @property
    def taken_count(self) -> int:
        """How many tasks were counted as placed: what `undo` can go back to."""
        return len(self._log)

    def refusal(self, task: objects.Task) -> str:
        """Why the task must not be placed, and what would help, in words; empty where it may."""
        quota = self._quotas.get(task.meta.tenant)
        if quota is None:
            return ""
        slot = self._slots.get(_key(task), NOTHING)
        more = slot.or_more(use_of(task)).beyond(slot)
        return "; ".join(_task_problems(task.meta.tenant, quota, self._used[task.meta.tenant], more))

    def take(self, task: objects.Task) -> None:
        """Counts it as placed."""
        tenant = task.meta.tenant
        used = self._used.get(tenant)
        if used is None:
            return
        key = _key(task)
        slot = self._slots.get(key, NOTHING)
        larger = slot.or_more(use_of(task))
        self._log.append((tenant, key, slot, used))
        self._slots[key] = larger
        self._used[tenant] = used + larger.beyond(slot)

    def undo(self, taken_count: int) -> None:
        """As it was when so many were taken."""
        while len(self._log) > taken_count:
            tenant, key, slot, used = self._log.pop()
            self._slots[key], self._used[tenant] = slot, used


def use_of(task: objects.Task) -> Use:
    """Of one task."""
    resources = task.spec.resources
    return Use(1, resources.cpu_reserved_millis, resources.memory_reserved_bytes)


def used_by_tasks(tasks: Iterable[objects.Task]) -> Use:
    """Of all tasks of one tenant, those of a slot counted as one."""
    slots: dict[Key, Use] = {}
    for task in tasks:
        if assigned(task) and not ended(task):
            slots[_key(task)] = slots.get(_key(task), NOTHING).or_more(use_of(task))
    return sum(slots.values(), NOTHING)


def quota_of(store: Store, tenant: str) -> objects.Quota:
    """Of a tenant; an empty one where it has none."""
    stored = store.table(objects.Tenant).unique("name", tenant)
    return stored.quota if stored is not None else objects.Quota()


def ports_of_tenant(store: Store, tenant: str) -> set[str]:
    """Names of the leases of ports that its services publish."""
    found = set()
    for lease in store.table(objects.Lease).by("kind", objects.Lease.KIND_PUBLISHED_PORT):
        holder = store.get(objects.Service, lease.holder_id)
        if holder is not None and holder.meta.tenant == tenant:
            found.add(lease.meta.name)
    return found


def check_ports(store: Store, tenant: str, before: int, after: int) -> None:
    """Raises Refused (EXHAUSTED) where a tenant would publish more ports than before, and more than it may."""
    quota = quota_of(store, tenant)
    if quota.HasField("published_ports") and after > max(before, quota.published_ports):
        raise Refused(
            f"{_allows(tenant, f'{quota.published_ports} published ports')} {before} are in use, and there would be "
            f"{after}; {_remedy(tenant, f'--ports {after}')}",
            Kind.EXHAUSTED,
        )


def check_volumes(store: Store, tenant: str, more: int) -> None:
    """Raises Refused (EXHAUSTED) where a tenant must not have so many volumes more."""
    quota = quota_of(store, tenant)
    if more and quota.HasField("volumes"):
        used = sum(volume.meta.tenant == tenant for volume in store.table(objects.Volume))
        if used + more > quota.volumes:
            raise Refused(volumes_words(tenant, quota.volumes, used, more), Kind.EXHAUSTED)


def own_volume_refusal(draft: Draft, tenant: str) -> str:
    """Why a slot must not get a volume of its own, as the plan stands so far; empty where it may."""
    quota = quota_of(draft.store, tenant)
    if not quota.HasField("volumes"):
        return ""
    used = sum(volume.meta.tenant == tenant for volume in draft.volumes())
    return volumes_words(tenant, quota.volumes, used, 1) if used >= quota.volumes else ""


def volumes_words(tenant: str, allowed: int, used: int, more: int) -> str:
    return (
        f"{_allows(tenant, _plural(allowed, 'volume'))} {used} are there, and {more} more would be made; "
        f"{_remedy(tenant, f'--volumes {used + more}')}"
    )


def _task_problems(tenant: str, quota: objects.Quota, used: Use, more: Use) -> Iterable[str]:
    """`more`: what would be used besides."""
    if more.tasks and quota.HasField("tasks") and used.tasks + more.tasks > quota.tasks:
        yield (
            f"{_allows(tenant, _plural(quota.tasks, 'task'))} {used.tasks} are in use; "
            f"{_remedy(tenant, f'--tasks {used.tasks + more.tasks}')}"
        )
    cpu = used.cpu_millis + more.cpu_millis
    if more.cpu_millis and quota.HasField("cpu_reserved_millis") and cpu > quota.cpu_reserved_millis:
        yield (
            f"{_allows(tenant, cpu_text(quota.cpu_reserved_millis) + ' to be reserved')} {cpu_text(used.cpu_millis)} "
            f"is in use, and it takes {cpu_text(more.cpu_millis)}; {_remedy(tenant, f'--cpu {cpu / 1000:g}')}"
        )
    memory = used.memory_bytes + more.memory_bytes
    if more.memory_bytes and quota.HasField("memory_reserved_bytes") and memory > quota.memory_reserved_bytes:
        yield (
            f"{_allows(tenant, bytes_text(quota.memory_reserved_bytes) + ' of memory to be reserved')} "
            f"{bytes_text(used.memory_bytes)} is in use, and it takes {bytes_text(more.memory_bytes)}; "
            f"{_remedy(tenant, f'--memory {-(-memory // MIB)}M')}"
        )


def _key(task: objects.Task) -> Key:
    blue_green = task.spec.rollout.strategy == objects.RolloutSpec.STRATEGY_BLUE_GREEN
    return (task.service_id, task.slot, task.run, task.generation if blue_green else 0)


def _allows(tenant: str, amount: str) -> str:
    return f"the quota of tenant {tenant} allows {amount}:"


def _remedy(tenant: str, change: str) -> str:
    return f"`fairway quota set {tenant} {change}` would be enough"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
