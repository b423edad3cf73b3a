"""What the two words of `fairway net trace A B` mean: tasks, services, hosts, names and addresses. Pure."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon import lookup
from daemon.errors import Kind, Refused
from daemon.leader.endpoints_plan import endpoint_of
from daemon.orchestration.external_parts import network_of
from net.addresses import ipv6_of
from proto import objects_pb2 as objects
from raft.store import Store

BACKENDS_MAX = 4  # looked at; the rest behave alike
SERVICE, TASK, HOST, OUTSIDE, NOBODY, NAME = "service", "task", "host", "outside", "nobody", "name"


@dataclass(frozen=True)
class Source:
    node: objects.Node
    task: objects.Task | None

    @property
    def label(self) -> str:
        return label_of(self.task) if self.task is not None else self.node.meta.name

    @property
    def address(self) -> str:
        """That its packets to tasks come from."""
        return self.task.address if self.task is not None else self.node.network.tunnel_address


@dataclass(frozen=True)
class Target:
    """`kind` NAME: only the name server can say what it is; `addresses` are then empty."""

    kind: str
    label: str
    name: str = ""  # to be resolved on the way; empty: an address was given
    addresses: tuple[str, ...] = ()  # that a client connects to
    port: int = 0  # 0: not known
    protocol: str = "tcp"
    service: objects.Service | None = None
    node: objects.Node | None = None
    backends: tuple[objects.Task, ...] = ()
    unready: tuple[objects.Task, ...] = ()
    networks: tuple[str, ...] = ()  # ids
    similar: tuple[str, ...] = ()  # names that were perhaps meant
    ipv6_prefix: str = ""  # of the cluster, where the way is one of IPv6

    def over(self, address: str) -> str:
        """An IPv4 address of ours, or the IPv6 one that goes with it, as the way is."""
        return ipv6_of(self.ipv6_prefix, address) if self.ipv6_prefix and ":" not in address else address


def label_of(task: objects.Task) -> str:
    return f"{task.app}/{task.meta.name}"


def find_source(store: Store, text: str) -> Source:
    """A task, the first ready task of a service, or a host. Raises Refused."""
    try:
        tasks = [task for task in lookup.find_tasks(store, text) if task.node_id]
    except Refused:
        node = _node(store, text)
        if node is None:
            raise Refused(
                f"there is no task, service or host {text!r}; `fairway ps` and `fairway node ls` list them",
                Kind.NOT_FOUND,
            ) from None
        return Source(node, None)
    running = [task for task in tasks if task.status.state == objects.TASK_STATE_RUNNING]
    chosen = next((task for task in running if task.status.ready), running[0] if running else None)
    if chosen is None:
        raise Refused(f"no task of {text!r} is running; `fairway ps {text}` says why", Kind.NOT_POSSIBLE)
    found = store.get(objects.Node, chosen.node_id)
    if found is None:
        raise Refused(f"the host of {label_of(chosen)} is not known any more", Kind.NOT_POSSIBLE)
    return Source(found, chosen)


def find_target(store: Store, text: str, source: Source, port: int, protocol: str) -> Target:
    """`text` as the source would say it, or as this command line names things."""
    try:
        return _by_address(store, str(ipaddress.ip_address(text)), port, protocol)
    except ValueError:
        pass
    node = _node(store, text)
    services = _services(store, text, source)
    if node is not None and not services:
        return Target(HOST, node.meta.name, addresses=(node.address,), port=port, protocol=protocol, node=node)
    if len(services) == 1:
        return _service(store, services[0], _name_of(services[0], text, source), port, protocol)
    tasks = _tasks(store, text, source)
    if tasks:
        return _task(store, tasks[0], text, port, protocol)
    names = [f"{each.app}/{each.meta.name}" for each in store.table(objects.Service)]
    plain = [each.meta.name for each in store.table(objects.Service)]
    similar = difflib.get_close_matches(text, [*names, *plain], n=3, cutoff=0.6)
    return Target(NAME, text, name=text, port=port, protocol=protocol, similar=tuple(dict.fromkeys(similar)))


def resolved(store: Store, target: Target, addresses: Sequence[str]) -> Target:
    """A target of which only the name was known, once a name server has answered."""
    if not addresses:
        return target
    found = _by_address(store, addresses[0], target.port, target.protocol)
    return replace(found, label=target.label if found.kind == OUTSIDE else found.label, name=target.name)


def _by_address(store: Store, address: str, port: int, protocol: str) -> Target:
    parsed = ipaddress.ip_address(address)
    for cluster in store.table(objects.Cluster):
        prefix = cluster.network.ipv6_prefix
        if prefix and parsed in ipaddress.ip_network(prefix):
            ours = str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
            found = _by_address(store, ours, port, protocol)
            return replace(
                found, label=address if found.kind == NOBODY else found.label, addresses=(address,), ipv6_prefix=prefix
            )
    for service in store.table(objects.Service):
        if service.vip == address:
            return _service(store, service, "", port, protocol)
    for task in store.table(objects.Task):
        if task.address == address and task.status.state == objects.TASK_STATE_RUNNING:
            return _task(store, task, "", port, protocol)
    for node in store.table(objects.Node):
        if address in (node.address, node.network.tunnel_address):
            return Target(HOST, node.meta.name, "", (address,), port, protocol, node=node)
    for cluster in store.table(objects.Cluster):
        for pool in (cluster.network.host_pool, cluster.network.vip_pool):
            if pool and parsed.version == 4 and parsed in ipaddress.ip_network(pool):
                return Target(NOBODY, address, "", (address,), port, protocol)
    return Target(OUTSIDE, address, "", (address,), port, protocol)


def _service(store: Store, service: objects.Service, name: str, port: int, protocol: str) -> Target:
    tasks = [
        task
        for task in store.table(objects.Task).by("service", service.meta.id)
        if task.desired == objects.DESIRED_STATE_RUNNING
    ]
    ready = [task for task in tasks if (endpoint := endpoint_of(store, task)) is not None and endpoint.ready]
    ready.sort(key=lambda task: task.slot)
    ids = {task.meta.id for task in ready}
    declared = [each for each in service.spec.ports if each.protocol == protocol]
    networks = [
        network.meta.id
        for each in service.spec.networks
        if (network := network_of(store, service.meta.tenant, service.app, service.spec, each)) is not None
    ]
    return Target(
        SERVICE,
        f"{service.app}/{service.meta.name}",
        name,
        (service.vip,) if service.vip else tuple(task.address for task in ready),
        port or (declared[0].target if declared else 0),
        protocol,
        service,
        backends=tuple(ready[:BACKENDS_MAX]),
        unready=tuple(task for task in tasks if task.meta.id not in ids),
        networks=tuple(networks),
    )


def _task(store: Store, task: objects.Task, text: str, port: int, protocol: str) -> Target:
    declared = [each for each in task.spec.ports if each.protocol == protocol]
    by_name = text in (task.meta.name, f"{task.app}/{task.meta.name}")
    return Target(
        TASK,
        label_of(task),
        f"{task.meta.name}.{task.app}" if by_name else "",
        (task.address,) if task.address else (),
        port or (declared[0].target if declared else 0),
        protocol,
        store.get(objects.Service, task.service_id),
        backends=(task,) if task.node_id else (),
        networks=tuple(task.networks),
    )


def _services(store: Store, text: str, source: Source) -> list[objects.Service]:
    """By APP/NAME, NAME in the source's own app, NAME.APP, NAME.APP.TENANT, or NAME where only one app has it."""
    app, slash, name = text.rpartition("/")
    table = list(store.table(objects.Service))
    if slash:
        return [each for each in table if (each.app, each.meta.name) == (app, name)]
    if source.task is not None:
        own = [each for each in table if (each.app, each.meta.name) == (source.task.app, text)]
        if own:
            return own
    by_app = [each for each in table if f"{each.meta.name}.{each.app}" == text]
    if source.task is not None and len(by_app) > 1:
        by_app = [each for each in by_app if each.meta.tenant == source.task.meta.tenant]
    dotted = by_app or [each for each in table if f"{each.meta.name}.{each.app}.{each.meta.tenant}" == text]
    return dotted or [each for each in table if each.meta.name == text or each.meta.id == text]


def _tasks(store: Store, text: str, source: Source) -> list[objects.Task]:
    try:
        found = lookup.find_tasks(store, text)
    except Refused:
        return []
    live = [task for task in found if task.desired == objects.DESIRED_STATE_RUNNING] or found
    own = [task for task in live if source.task is not None and task.app == source.task.app]
    return own or live


def _name_of(service: objects.Service, text: str, source: Source) -> str:
    """How the source asks for a service."""
    if source.task is None or "/" in text or text == service.meta.id:
        same = source.task is None or source.task.meta.tenant == service.meta.tenant
        return f"{service.meta.name}.{service.app}" + ("" if same else f".{service.meta.tenant}")
    return text  # as it was typed: that an app does not know another's names is worth showing


def _node(store: Store, text: str) -> objects.Node | None:
    return next((node for node in store.table(objects.Node) if text in (node.meta.name, node.meta.id)), None)
