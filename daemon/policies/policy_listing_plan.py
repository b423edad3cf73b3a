"""Policies as an operator sees them: which services they select, and what hosts have counted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.agent.network_view import frontend_value
from daemon.leader.endpoints_plan import frontend_of
from daemon.policies.policy_changes_plan import find_policy
from daemon.policies.policy_values import as_applied, policy_value
from net.addresses import ipv4_of
from net.policy_plan import matches
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.host_pb2 import ReadPolicyCountsReply
from raft.store import Store

DENIALS_MAX = 50  # of one policy


def policy_views(store: Store, asked: str) -> list[control.PolicyView]:
    """All, or the one that is asked for; sorted by tenant and name. Raises Refused."""
    views = sorted([*_applied(store), *_of_services(store)], key=lambda view: (_meta(view).tenant, _meta(view).name))
    if not asked:
        return views
    own = [view for view in views if view.service and asked in (view.service, _meta(view).id)]
    if own:
        return own
    wanted = find_policy(store, asked).meta.id
    return [view for view in views if _meta(view).id == wanted]


def add_counts(store: Store, views: Iterable[control.PolicyView], replies: Iterable[ReadPolicyCountsReply]) -> None:
    """Sums what the hosts counted; addresses of tasks become their names."""
    by_id = {_meta(view).id: view for view in views}
    names = {task.address: f"{task.app}/{task.meta.name}" for task in store.table(objects.Task) if task.address}
    prefix = next((cluster.network.ipv6_prefix for cluster in store.table(objects.Cluster)), "")
    for reply in replies:
        for count in reply.counts:
            if count.policy_id in by_id:
                by_id[count.policy_id].packets += count.packets
                by_id[count.policy_id].bytes += count.bytes
        for denial in reply.denials:
            if denial.policy_id in by_id:
                by_id[denial.policy_id].denials.append(denial)
    for view in by_id.values():
        kept = sorted(view.denials, key=lambda denial: denial.unix_ms)[-DENIALS_MAX:]
        del view.denials[:]
        for denial in kept:
            for end in ("source", "target"):
                address = getattr(denial, end)
                ours = ipv4_of(prefix, address) if ":" in address else address
                setattr(denial, end, names.get(ours, address))
            view.denials.append(denial)


def _meta(view: control.PolicyView) -> objects.Meta:
    return view.policy.meta


def _applied(store: Store) -> Iterator[control.PolicyView]:
    services = [(each, frontend_of(store, each)) for each in store.table(objects.Service)]
    known = [(f"{each.app}/{each.meta.name}", frontend_value(found)) for each, found in services if found is not None]
    for policy in store.table(objects.Policy):
        selects = policy_value(policy).selects
        selected = sorted(name for name, service in known if matches(selects, service))
        yield control.PolicyView(policy=policy, selected=selected)


def _of_services(store: Store) -> Iterator[control.PolicyView]:
    for service in store.table(objects.Service):
        if service.spec.HasField("policy") and not service.removing:
            name = f"{service.app}/{service.meta.name}"
            yield control.PolicyView(policy=as_applied(service), service=name, selected=[name])
