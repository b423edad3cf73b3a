"""Operators' changes of tenants' quotas, what is used of them, and what a deploy says of them beforehand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from daemon.deploying.app_checks import app_name_problem
from daemon.errors import Kind, Refused
from daemon.orchestration.kinds import is_job, slots_of
from daemon.orchestration.quantities import bytes_text, cpu_text
from daemon.orchestration.quota_plan import Use, ports_of_tenant, quota_of, used_by_tasks
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

DEFAULT_TENANT = "default"
FIELDS = tuple(field.name for field in objects.Quota.DESCRIPTOR.fields)


def plan_set_quota(
    store: Store, request: control.SetQuotaRequest, new_id: Callable[[], str]
) -> tuple[control.QuotaView, TransactionBuilder]:
    """The quota as it will be, and what is used now. What is in use already stays, however low the quota is set.

    Raises Refused (INVALID)."""
    problem = app_name_problem(request.tenant)
    if problem:
        raise Refused(f"{request.tenant!r} cannot be the name of a tenant: {problem}")
    for name in FIELDS:
        if getattr(request.quota, name) < 0:
            raise Refused(f"{name.replace('_', ' ')} of a quota cannot be negative")
    for name in request.unbound:
        if name not in FIELDS:
            raise Refused(f"{name!r} is nothing that a quota bounds: {', '.join(FIELDS)}")
    builder = TransactionBuilder().needs(WORKLOADS_LEVEL)
    before = store.table(objects.Tenant).unique("name", request.tenant)
    after = objects.Tenant()
    if before is not None:
        after.CopyFrom(before)
    else:
        after.meta.CopyFrom(objects.Meta(id=new_id(), name=request.tenant, tenant=request.tenant, format=1))
    after.quota.SetInParent()
    after.quota.MergeFrom(request.quota)
    for name in request.unbound:
        after.quota.ClearField(name)  # type: ignore[arg-type]
    if before is None:
        builder.create(after)
    elif after != before:
        builder.update(after)
    return _view(store, after), builder


def plan_remove_quota(store: Store, name: str) -> tuple[control.QuotaView, TransactionBuilder]:
    """The quota as it was. Raises Refused (NOT_FOUND)."""
    before = _find_tenant(store, name)
    if not before.HasField("quota"):
        raise Refused(f"tenant {name} has no quota", Kind.NOT_FOUND)
    after = objects.Tenant()
    after.CopyFrom(before)
    after.ClearField("quota")
    return _view(store, before), TransactionBuilder().update(after)


def quota_views(store: Store, name: str) -> list[control.QuotaView]:
    """Of one tenant, or of all by name. Raises Refused (NOT_FOUND)."""
    tenants = [_find_tenant(store, name)] if name else list(store.table(objects.Tenant))
    return [_view(store, tenant) for tenant in sorted(tenants, key=lambda tenant: tenant.meta.name)]


def quota_warnings(store: Store, app: control.AppSpec) -> Iterator[str]:
    """Where the tenant's apps, with this one as it is deployed, ask for more than its quota allows."""
    tenant = app.tenant or DEFAULT_TENANT
    quota = quota_of(store, tenant)
    if not quota.ListFields():
        return
    asked = Use()
    nodes = {node.meta.id: node for node in store.table(objects.Node)}
    for service in store.table(objects.Service):
        if service.meta.tenant == tenant and service.app != app.name and not service.removing:
            asked += _demand(service.spec, nodes)
    for spec in app.services.values():
        asked += _demand(spec, nodes)
    for name, words, amount, allowed in (
        ("tasks", str, asked.tasks, quota.tasks),
        ("cpu_reserved_millis", cpu_text, asked.cpu_millis, quota.cpu_reserved_millis),
        ("memory_reserved_bytes", bytes_text, asked.memory_bytes, quota.memory_reserved_bytes),
    ):
        has: Any = name
        if quota.HasField(has) and amount > allowed:
            what = {"tasks": "tasks", "cpu_reserved_millis": "reserved", "memory_reserved_bytes": "of memory reserved"}
            yield (
                f"the apps of tenant {tenant} ask for {words(amount)} {what[name]} with this one, and its quota allows "
                f"{words(allowed)}: some tasks will be pending"
            )


def _demand(spec: objects.ServiceSpec, nodes: dict[str, objects.Node]) -> Use:
    """Of a service with all its tasks; of a job, those of one run at once."""
    count = len(slots_of(objects.Service(spec=spec), nodes))
    if is_job(spec) and spec.job.parallelism:
        count = min(count, spec.job.parallelism)
    resources = spec.resources
    return Use(count, count * resources.cpu_reserved_millis, count * resources.memory_reserved_bytes)


def _find_tenant(store: Store, name: str) -> objects.Tenant:
    tenant = store.table(objects.Tenant).unique("name", name)
    if tenant is None:
        raise Refused(f"there is no tenant {name!r}; `fairway quota ls` lists them", Kind.NOT_FOUND)
    return tenant


def _view(store: Store, tenant: objects.Tenant) -> control.QuotaView:
    name = tenant.meta.name
    use = used_by_tasks(task for task in store.table(objects.Task) if task.meta.tenant == name)
    used = objects.Quota(
        tasks=use.tasks,
        cpu_reserved_millis=use.cpu_millis,
        memory_reserved_bytes=use.memory_bytes,
        published_ports=len(ports_of_tenant(store, name)),
        volumes=sum(volume.meta.tenant == name for volume in store.table(objects.Volume)),
    )
    return control.QuotaView(tenant=name, quota=tenant.quota if tenant.HasField("quota") else None, used=used)
