"""What `fairway net policy test A B PORT` answers: the ends by the words for them, and the verdict. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from daemon import lookup
from daemon.agent.network_view import frontend_value, network_value
from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import frontend_of
from daemon.policies.policy_values import policy_value
from net.addresses import ipv4_of
from net.model import Frontend
from net.policy import PROTOCOLS
from net.policy_plan import HOST, OUTSIDE, TASK, Connection, Party, Policies, Verdict, World
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store

_PORTLESS = ("icmp",)


def answer_test(store: Store, request: control.TestPolicyRequest) -> control.TestPolicyReply:
    """Raises Refused where an end, the protocol or the port makes no sense."""
    protocol = request.protocol or "tcp"
    if protocol not in (*PROTOCOLS, *_PORTLESS):
        raise Refused(f"{protocol!r} is no protocol to test: use {', '.join((*PROTOCOLS, *_PORTLESS))}")
    if request.port > 65_535 or (not request.port and protocol in PROTOCOLS):
        raise Refused(f"give a port of {request.target}, 1 to 65535, or --icmp")
    source, target = party_of(store, request.source), party_of(store, request.target)
    if target.kind == HOST or (source.kind == OUTSIDE and target.kind == OUTSIDE):
        raise Refused(f"policies say nothing of the way from {source.label} to {target.label}: name a service or task")
    if source == target and source.kind == TASK and request.source == request.target and "." not in request.source:
        target = replace(target, address="another task of it")
    connection = Connection(source, target, protocol, request.port, request.ipv6)
    found = judge(store, _by_published_port(connection, request.published))
    reply = control.TestPolicyReply(allowed=found.allowed, rule=found.rule)
    for step in found.steps:
        reply.steps.add(what=step.direction, allowed=step.allowed, rule=step.rule, would=step.would)
    return reply


def judge(store: Store, connection: Connection) -> Verdict:
    """By the policies, networks and trusted ranges of the store."""
    networks = {network.meta.id: network_value(network) for network in store.table(objects.Network)}
    trusted = [cidr for cluster in store.table(objects.Cluster) for cidr in cluster.network.trusted_cidrs]
    policies = Policies(policy_value(policy) for policy in store.table(objects.Policy))
    return World(policies, networks, trusted).verdict(connection)


def _by_published_port(connection: Connection, asked: bool) -> Connection:
    """From outside there is no other way, and there the port may be said as it is published."""
    service = connection.target.service
    if service is None or not (asked or connection.source.kind == OUTSIDE):
        return connection
    published = [port for port in service.ports if port.published and port.protocol == connection.protocol]
    found = next((port for port in published if connection.port in (port.target, port.published)), None)
    if found is not None:
        return replace(connection, port=found.target, published=True)
    if asked:
        raise Refused(f"{connection.target.label} publishes no port for {connection.protocol}/{connection.port}")
    return connection


def party_of(store: Store, text: str) -> Party:
    """An address, a host, a task or a service, whether or not tasks of it run. Raises Refused."""
    try:
        address = str(ipaddress.ip_address(text))
    except ValueError:
        pass
    else:
        return _by_address(store, address)
    for node in store.table(objects.Node):
        if text == node.meta.name:
            return Party(HOST, node.address, f"host {text}")
    name = text.rpartition("/")[2]
    if "." in name or len(name) == 26:
        tasks = [task for task in lookup.find_tasks(store, text) if task.address]
        if tasks:
            return party_of_task(store, tasks[-1])
    return _of_service(store, lookup.find_service(store, text))


def party_of_task(store: Store, task: objects.Task) -> Party:
    service = _frontend(store, store.get(objects.Service, task.service_id))
    return Party(TASK, task.address, f"{task.app}/{task.meta.name}", service, tuple(task.networks))


def _of_service(store: Store, service: objects.Service) -> Party:
    found = _frontend(store, service)
    label = f"{service.app}/{service.meta.name}"
    if found is None:
        raise Refused(f"{label} has no network, or is being removed", Kind.NOT_POSSIBLE)
    return Party(TASK, f"a task of {label}", label, found, found.networks)


def _by_address(store: Store, address: str) -> Party:
    ours = address
    for cluster in store.table(objects.Cluster):
        if ":" in address:
            ours = ipv4_of(cluster.network.ipv6_prefix, address) or address
    tasks = store.table(objects.Task).by("address", ours)
    for task in tasks:
        return party_of_task(store, task)
    for service in store.table(objects.Service):
        if service.vip and service.vip == ours:
            return _of_service(store, service)
    for node in store.table(objects.Node):
        if ours in (node.address, node.network.tunnel_address):
            return Party(HOST, node.address, f"host {node.meta.name}")
    return Party(OUTSIDE, address, address)


def _frontend(store: Store, service: objects.Service | None) -> Frontend | None:
    found = frontend_of(store, service) if service is not None else None
    return frontend_value(found) if found is not None else None
