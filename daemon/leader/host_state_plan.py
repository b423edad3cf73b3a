"""What each host has to know of the cluster, complete or as changes. Pure.

The common part (cluster, nodes, frontends, endpoints, networks, policies, images) is computed once for all hosts; a
host's own part is the tasks that it has not reported gone, the names of those whose logs it is to keep, and the volumes
that it holds. Items are compared
with those sent before: a change of the store that hosts have no use for wakes up nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from daemon.leader.endpoints_plan import endpoint_of, endpoints_on, frontend_of
from daemon.orchestration.leases import FLOATING_PREFIX
from daemon.orchestration.scheduler_words import ZONE_LABEL
from daemon.orchestration.task_states import gone
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState
from raft.store import Change, ChangeBatch, Store

OwnItem = tuple[str, HostItem | None, str]  # key, None where there is none any more, node id


@dataclass(frozen=True)
class Deltas:
    """Changes up to one revision: for every host, and for those that have their own."""

    common: HostState
    per_node: dict[str, HostState] = field(default_factory=dict)


class HostStates:
    """Follows `store` by change batches; a batch with resync needs a new object."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = store.revision
        self._common: dict[str, HostItem] = {}
        self._own: dict[str, dict[str, HostItem]] = {}  # by node id
        self._holder: dict[str, str] = {}  # key of an own item -> node id
        for key, item in _all_common(store):
            self._common[key] = item
        for task in store.table(objects.Task):
            for own in _task_items(task.meta.id, task):
                self._set_own(*own)
        for volume in store.table(objects.Volume):
            self._set_own(f"volume/{volume.meta.id}", *_volume_item(volume))

    def complete(self, node_id: str) -> HostState:
        """All that one host has to know."""
        state = HostState(complete=True, revision=self.revision, put=self._common.values(), names_logs=True)
        state.put.extend(self._own.get(node_id, {}).values())
        return state

    def advance(self, batch: ChangeBatch) -> Deltas:
        """Takes a batch in; only what differs from what hosts know already. The store must stand at the
        batch's revision or beyond: derived items are made of what it holds now."""
        self.revision = max(self.revision, batch.revision)
        common = HostState(revision=self.revision)
        per_node: dict[str, HostState] = {}
        for key, item in self._derived(batch):
            self._set_common(common, key, item)
        for change in batch.changes:
            for key, item, node_id in self._own_of(change):
                for concerned, put in self._set_own(key, item, node_id):
                    state = per_node.setdefault(concerned, HostState(revision=self.revision))
                    if put is None:
                        state.removed_keys.append(key)
                    else:
                        state.put.append(put)
        return Deltas(common, per_node)

    def _own_of(self, change: Change) -> list[OwnItem]:
        """Own items that a change may have changed."""
        if change.table == "tasks":
            return _task_items(change.id, self._store.get(objects.Task, change.id))
        if change.table == "volumes":
            volume = self._store.get(objects.Volume, change.id)
            return [(f"volume/{change.id}", *(_volume_item(volume) if volume is not None else (None, "")))]
        return []

    def _derived(self, batch: ChangeBatch) -> Iterator[tuple[str, HostItem | None]]:
        """Common items that a batch may have changed; None where there is none any more."""
        seen: dict[str, HostItem | None] = {}
        for change in batch.changes:
            seen.update(self._common_of(change))
        yield from seen.items()

    def _common_of(self, change: Change) -> dict[str, HostItem | None]:
        store, identifier = self._store, change.id
        match change.table:
            case "tasks":
                return {f"endpoint/{identifier}": _endpoint_item(store, identifier)}
            case "services":
                return self._common_of_service(change)
            case "networks":
                network = store.get(objects.Network, identifier)
                items: dict[str, HostItem | None] = {f"network/{identifier}": _network_item(network)}
                of_app = cast(objects.Network, change.after or change.before)
                for service in store.table(objects.Service).by("app", (of_app.meta.tenant, of_app.app)):
                    items[f"frontend/{service.meta.id}"] = _frontend_item(store, service)
                return items
            case "images":
                image = store.get(objects.Image, identifier)
                key = f"image/{identifier}"
                return {key: HostItem(key=key, image=image) if image is not None else None}
            case "nodes":
                return self._common_of_node(change)
            case "policies":
                policy = store.get(objects.Policy, identifier)
                key = f"policy/{identifier}"
                return {key: HostItem(key=key, policy=policy) if policy is not None else None}
            case "leases":
                lease = store.get(objects.Lease, identifier)
                return _floating_items(identifier, lease)
            case "clusters":
                cluster = store.get(objects.Cluster, identifier)
                return {f"cluster/{identifier}": _cluster_item(cluster)}
        return {}

    def _common_of_service(self, change: Change) -> dict[str, HostItem | None]:
        service = self._store.get(objects.Service, change.id)
        items: dict[str, HostItem | None] = {f"frontend/{change.id}": _frontend_item(self._store, service)}
        before, after = cast(objects.Service | None, change.before), cast(objects.Service | None, change.after)
        if before is not None and after is not None and _as_traffic_goes(before) != _as_traffic_goes(after):
            for task in self._store.table(objects.Task).by("service", change.id):
                items[f"endpoint/{task.meta.id}"] = _endpoint_item(self._store, task.meta.id)
        return items

    def _common_of_node(self, change: Change) -> dict[str, HostItem | None]:
        items: dict[str, HostItem | None] = {f"node/{change.id}": _node_item(self._store.get(objects.Node, change.id))}
        before, after = cast(objects.Node | None, change.before), cast(objects.Node | None, change.after)
        if before is None or after is None or _as_endpoints_see(before) != _as_endpoints_see(after):
            for task_id, _ in endpoints_on(self._store, change.id):
                items[f"endpoint/{task_id}"] = _endpoint_item(self._store, task_id)
        return items

    def _set_common(self, state: HostState, key: str, item: HostItem | None) -> None:
        before = self._common.get(key)
        if item is None:
            if before is not None:
                del self._common[key]
                state.removed_keys.append(key)
        elif before is None or before != item:
            self._common[key] = item
            state.put.append(item)

    def _set_own(self, key: str, item: HostItem | None, node_id: str) -> list[tuple[str, HostItem | None]]:
        """Puts an own item where it belongs; (node id, item or None for removal) of each host concerned."""
        concerned: list[tuple[str, HostItem | None]] = []
        holder = self._holder.get(key, "")
        if holder and (item is None or holder != node_id):
            del self._holder[key]
            del self._own[holder][key]
            concerned.append((holder, None))
        if item is not None and node_id:
            own = self._own.setdefault(node_id, {})
            before = own.get(key)
            own[key] = item
            self._holder[key] = node_id
            if before is None or _differs_for_host(before, item):
                concerned.append((node_id, item))
        return concerned


def _differs_for_host(before: HostItem, after: HostItem) -> bool:
    """Whether a host must hear of a change. What it reported itself it knows: that comes back to it only in a
    complete state."""
    if before == after:
        return False
    if after.WhichOneof("item") != "task":
        return True
    known = objects.Task()
    known.CopyFrom(before.task)
    known.status.CopyFrom(after.task.status)
    known.meta.CopyFrom(after.task.meta)
    known.address = after.task.address
    return known != after.task


def _all_common(store: Store) -> Iterator[tuple[str, HostItem]]:
    items: list[HostItem | None] = [_cluster_item(cluster) for cluster in store.table(objects.Cluster)]
    items += [_node_item(node) for node in store.table(objects.Node)]
    items += [_frontend_item(store, service) for service in store.table(objects.Service)]
    items += [_endpoint_item(store, task.meta.id) for task in store.table(objects.Task)]
    items += [_network_item(network) for network in store.table(objects.Network)]
    items += [HostItem(key=f"image/{image.meta.id}", image=image) for image in store.table(objects.Image)]
    items += [HostItem(key=f"policy/{policy.meta.id}", policy=policy) for policy in store.table(objects.Policy)]
    for lease in store.table(objects.Lease).by("kind", objects.Lease.KIND_FLOATING_ADDRESS):
        items += _floating_items(lease.meta.id, lease).values()
    for item in items:
        if item is not None:
            yield item.key, item


def _cluster_item(cluster: objects.Cluster | None) -> HostItem | None:
    if cluster is None:
        return None
    item = HostItem(key=f"cluster/{cluster.meta.id}", cluster=cluster)
    item.cluster.ClearField("ca_private_key_sealed")
    return item


def _node_item(node: objects.Node | None) -> HostItem | None:
    """Where the node is and what it is called. Not its state: that changes often and hosts do not need it."""
    if node is None:
        return None
    zone = {ZONE_LABEL: node.meta.labels[ZONE_LABEL]} if ZONE_LABEL in node.meta.labels else {}
    return HostItem(
        key=f"node/{node.meta.id}",
        node=objects.Node(
            meta=objects.Meta(id=node.meta.id, name=node.meta.name, tenant=node.meta.tenant, labels=zone),
            role=node.role,
            address=node.address,
            api_port=node.api_port,
            raft_port=node.raft_port,
            network=node.network,
            voter=node.voter,
            description=objects.NodeDescription(addresses=node.description.addresses),
        ),
    )


def _as_endpoints_see(node: objects.Node) -> tuple[object, ...]:
    """All that the endpoints on it depend on: whether it is there, and what weights and zones are told by."""
    return (node.state, node.role, node.meta.name, dict(node.meta.labels), node.description.architecture)


def _as_traffic_goes(service: objects.Service) -> tuple[object, ...]:
    """All that the endpoints of its tasks depend on: how they are weighed, and which side of a change has traffic."""
    return (service.spec.balance, service.traffic, service.HasField("traffic"))


def _floating_items(identifier: str, lease: objects.Lease | None) -> dict[str, HostItem | None]:
    if not identifier.startswith(FLOATING_PREFIX):
        return {}
    return {identifier: HostItem(key=identifier, floating=lease) if lease is not None else None}


def _frontend_item(store: Store, service: objects.Service | None) -> HostItem | None:
    frontend = frontend_of(store, service) if service is not None else None
    if frontend is None:
        return None
    return HostItem(key=f"frontend/{frontend.service_id}", frontend=frontend)


def _endpoint_item(store: Store, task_id: str) -> HostItem | None:
    task = store.get(objects.Task, task_id)
    endpoint = endpoint_of(store, task) if task is not None else None
    if endpoint is None:
        return None
    return HostItem(key=f"endpoint/{task_id}", endpoint=endpoint)


def _network_item(network: objects.Network | None) -> HostItem | None:
    if network is None:
        return None
    return HostItem(key=f"network/{network.meta.id}", network=network)


def _task_items(task_id: str, task: objects.Task | None) -> list[OwnItem]:
    """The task itself while something of it is on its host, and its log for as long as it is remembered."""
    key, log_key = f"task/{task_id}", f"log/{task_id}"
    if task is None or not task.node_id:
        return [(key, None, ""), (log_key, None, "")]
    item = HostItem(key=key, task=task) if not gone(task) else None
    return [(key, item, task.node_id), (log_key, HostItem(key=log_key), task.node_id)]


def _volume_item(volume: objects.Volume) -> tuple[HostItem | None, str]:
    if not volume.node_id:
        return None, ""
    return HostItem(key=f"volume/{volume.meta.id}", volume=volume), volume.node_id
