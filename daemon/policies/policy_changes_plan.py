"""Operators' changes of policies, as transactions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from daemon.agent.network_view import frontend_value
from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import frontend_of
from daemon.policies.policy_checks import policy_problems
from daemon.policies.policy_values import policy_value
from net.policy import EGRESS, INGRESS
from net.policy_chains import selectors
from net.policy_plan import matches
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

DEFAULT_TENANT = "default"
POLICIES_MAX = 2000  # of the cluster
Change = control.PolicyChange


def plan_apply_policies(
    store: Store, request: control.ApplyPoliciesRequest, new_id: Callable[[], str]
) -> tuple[control.ApplyPoliciesReply, TransactionBuilder]:
    """Creates or replaces all of them. Raises Refused."""
    builder, reply = TransactionBuilder(), control.ApplyPoliciesReply()
    if not request.policies:
        raise Refused("there is no policy to apply")
    seen: set[tuple[str, str]] = set()
    tenants = {tenant.meta.name for tenant in store.table(objects.Tenant)}
    table = store.table(objects.Policy)
    for asked in request.policies:
        wanted = _complete(asked)
        key = (wanted.meta.tenant, wanted.meta.name)
        for problem in policy_problems(wanted):
            raise Refused(f"policy {wanted.meta.name}: {problem}")
        if key in seen:
            raise Refused(f"policy {wanted.meta.name} is there twice")
        seen.add(key)
        if wanted.meta.tenant not in tenants:
            tenants.add(wanted.meta.tenant)
            builder.create(objects.Tenant(meta=objects.Meta(id=new_id(), name=wanted.meta.tenant, format=1)))
        before = table.unique("name", key)
        change = reply.changes.add(name=wanted.meta.name, tenant=wanted.meta.tenant, action=Change.UNCHANGED)
        if before is None:
            wanted.meta.id, wanted.meta.format = new_id(), 1
            builder.create(wanted)
            change.action = Change.CREATE
        else:
            labels = dict(wanted.meta.labels)
            wanted.meta.CopyFrom(before.meta)
            wanted.meta.labels.clear()
            wanted.meta.labels.update(labels)
            if wanted != before:
                builder.update(wanted)
                change.action = Change.UPDATE
        reply.warnings.extend(_warnings(store, wanted))
    created = sum(change.action == Change.CREATE for change in reply.changes)
    if len(table) + created > POLICIES_MAX:
        raise Refused(f"the cluster would have more than {POLICIES_MAX} policies", Kind.EXHAUSTED)
    return reply, builder


def plan_remove_policy(store: Store, text: str) -> tuple[objects.Policy, TransactionBuilder]:
    """Raises Refused where there is no such policy."""
    policy = find_policy(store, text)
    return policy, TransactionBuilder().delete(policy)


def find_policy(store: Store, text: str) -> objects.Policy:
    """By name, TENANT/NAME or id. Raises Refused."""
    tenant, slash, name = text.rpartition("/")
    found = [
        policy
        for policy in store.table(objects.Policy)
        if policy.meta.id == text or (policy.meta.name == name and (not slash or policy.meta.tenant == tenant))
    ]
    if len(found) > 1:
        names = ", ".join(sorted(f"{policy.meta.tenant}/{policy.meta.name}" for policy in found))
        raise Refused(f"{text!r} is the name of several policies ({names}); write TENANT/NAME")
    if found:
        return found[0]
    services = list(store.table(objects.Service))
    if any(text == f"{each.app}/{each.meta.name}" and each.spec.HasField("policy") for each in services):
        raise Refused(
            f"the policy {text} is in the Compose file of its app: change it there and deploy again", Kind.NOT_POSSIBLE
        )
    raise Refused(f"there is no policy {text!r}; `fairway net policy ls` lists them", Kind.NOT_FOUND)


def _complete(asked: objects.Policy) -> objects.Policy:
    """Only what is the operator's to say."""
    meta = objects.Meta(name=asked.meta.name, tenant=asked.meta.tenant or DEFAULT_TENANT, labels=asked.meta.labels)
    found = objects.Policy(meta=meta, selects=asked.selects, dry_run=asked.dry_run)
    for direction in (INGRESS, EGRESS):
        if asked.HasField(direction):  # type: ignore[arg-type]
            getattr(found, direction).CopyFrom(getattr(asked, direction))
    return found


def _warnings(store: Store, policy: objects.Policy) -> Iterator[str]:
    found = [frontend_of(store, service) for service in store.table(objects.Service)]
    services = [frontend_value(each) for each in found if each is not None]
    value = policy_value(policy)
    if not any(matches(value.selects, each) for each in services):
        yield f"policy {policy.meta.name} selects no service that is there now"
    for selector in dict.fromkeys(selectors(value)):
        if not any(matches(selector, each) for each in services):
            yield f"policy {policy.meta.name}: nothing that is there now is {selector}"
