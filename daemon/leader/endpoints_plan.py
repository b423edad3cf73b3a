"""What balancers and DNS use, derived from services and tasks and never stored. Pure.

A task that is told to stop is withdrawn at once, before its host stops it: it stays an endpoint that is not
ready, so that it gets no new connections and keeps those it has until it ends. One whose host is down is gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from daemon.orchestration import constraints
from daemon.orchestration.external_parts import network_of
from daemon.orchestration.scheduler_words import ZONE_LABEL
from daemon.orchestration.scraped_metrics import wanted_of
from daemon.orchestration.traffic import gets_traffic
from proto import objects_pb2 as objects
from raft.store import Store


def endpoint_of(store: Store, task: objects.Task) -> objects.Endpoint | None:
    """The task's endpoint; None where there is nothing to send to."""
    if task.status.state not in (objects.TASK_STATE_RUNNING, objects.TASK_STATE_STOPPING):
        return None
    if not task.address or not task.networks:
        return None
    node = store.get(objects.Node, task.node_id)
    if node is None or node.state == objects.NODE_STATE_DOWN:
        return None
    return objects.Endpoint(
        task_id=task.meta.id,
        task_name=task.meta.name,
        service_id=task.service_id,
        node_id=task.node_id,
        address=task.address,
        ready=task.status.ready
        and task.desired == objects.DESIRED_STATE_RUNNING
        and gets_traffic(store.get(objects.Service, task.service_id), task),
        networks=task.networks,
        weight=weight_of(store, task, node),
        zone=node.meta.labels.get(ZONE_LABEL, ""),
    )


def weight_of(store: Store, task: objects.Task, node: objects.Node) -> int:
    """The task's share where its service is balanced by weights, 0 where it is not."""
    service = store.get(objects.Service, task.service_id)
    if service is None or not service.spec.HasField("balance"):
        return 0
    balance = service.spec.balance
    if balance.policy == objects.BALANCE_POLICY_LEAST_LOADED:
        return task.status.balance_weight
    if balance.policy != objects.BALANCE_POLICY_WEIGHTED:
        return 0
    for each in balance.weights:
        if constraints.parse(each.constraint).allows(node):
            return each.weight
    return 1


def frontend_of(store: Store, service: objects.Service) -> objects.Frontend | None:
    """The service's frontend; None where it has no network or is being removed."""
    if service.removing or not service.spec.networks:
        return None
    networks = []
    aliases: dict[str, objects.StringList] = {}
    for name in service.spec.networks:
        network = network_of(store, service.meta.tenant, service.app, service.spec, name)
        if network is not None:
            networks.append(network.meta.id)
            if name in service.spec.network_aliases:
                aliases[network.meta.id] = service.spec.network_aliases[name]
    return objects.Frontend(
        service_id=service.meta.id,
        service=service.meta.name,
        app=service.app,
        tenant=service.meta.tenant,
        vip=service.vip,
        ports=service.spec.ports,
        balance=service.spec.balance if service.spec.HasField("balance") else None,
        networks=networks,
        network_aliases=aliases,
        policy=service.spec.policy if service.spec.HasField("policy") else None,
        labels=service.meta.labels,
        autoscale=service.spec.autoscale if service.spec.HasField("autoscale") else None,
        scraped=wanted_of(service),
    )


def endpoints(store: Store) -> Iterator[objects.Endpoint]:
    """All of the cluster."""
    for task in store.table(objects.Task):
        endpoint = endpoint_of(store, task)
        if endpoint is not None:
            yield endpoint


def frontends(store: Store) -> Iterator[objects.Frontend]:
    """All of the cluster."""
    for service in store.table(objects.Service):
        frontend = frontend_of(store, service)
        if frontend is not None:
            yield frontend


def endpoints_on(store: Store, node_id: str) -> Iterator[tuple[str, objects.Endpoint | None]]:
    """(task id, endpoint or None) of all tasks of one node: what to look at again when its state changes."""
    for task in store.table(objects.Task).by("node", node_id):
        yield task.meta.id, endpoint_of(store, task)
