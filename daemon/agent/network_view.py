"""From what the host knows of the cluster to what its kernel and resolver should do. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from operator import is_
from typing import Any

from daemon.agent.encryption import encryption_of
from daemon.agent.host_view import HostView
from daemon.orchestration.task_states import ended, gone
from daemon.policies.policy_values import policy_of_service, policy_value
from net import model
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem

POLICIES: dict[int, str] = {
    objects.BALANCE_POLICY_RANDOM: "random",
    objects.BALANCE_POLICY_ROUND_ROBIN: "round-robin",
    objects.BALANCE_POLICY_WEIGHTED: "weighted",
    objects.BALANCE_POLICY_SOURCE_HASH: "source-hash",
    objects.BALANCE_POLICY_LEAST_LOADED: "least-loaded",
}


class NetworkView:
    """Makes the desired network of one host; what did not change stays the same object.

    The network's planners compare by identity first, so that one change among thousands costs little.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._made: dict[str, dict[str, tuple[HostItem, Any]]] = {}  # kind -> key -> what was made of what
        self._tuples: dict[str, tuple[Any, ...]] = {}
        self._versions: dict[str, int] = {}

    def desired(self, view: HostView) -> model.DesiredNetwork | None:
        """None while the cluster or this host's own node is not known."""
        clusters = self._all(view, "cluster", lambda item: _config(item.cluster))
        hosts = self._all(view, "node", lambda item: _host(item.node) if item.node.network.block else None)
        local = next((host for host in hosts if host.node_id == self._node_id), None)
        if not clusters or local is None:
            return None
        return model.DesiredNetwork(
            config=clusters[0],
            local=local,
            hosts=hosts,
            frontends=self._all(view, "frontend", lambda item: frontend_value(item.frontend)),
            endpoints=self._all(view, "endpoint", lambda item: _endpoint(item.endpoint)),
            networks=self._all(view, "network", lambda item: network_value(item.network)),
            tasks=self._all(view, "task", lambda item: _local_task(item.task)),
            policies=self._all(view, "policy", lambda item: policy_value(item.policy)),
        )

    def _all(self, view: HostView, kind: str, make: Callable[[HostItem], Any]) -> tuple[Any, ...]:
        version = view.version(kind)
        if self._versions.get(kind) == version:
            return self._tuples.get(kind, ())
        self._versions[kind] = version
        made = self._made.setdefault(kind, {})
        values = []
        for key, item in view.items_of(kind):
            known = made.get(key)
            if known is None or known[0] is not item:
                fresh = make(item)
                if known is not None and known[1] == fresh:
                    fresh = known[1]
                made[key] = known = (item, fresh)
            if known[1] is not None:
                values.append(known[1])
        if len(made) > view.count(kind):
            present = {key for key, _ in view.items_of(kind)}
            for key in made.keys() - present:
                del made[key]
        before = self._tuples.get(kind, ())
        if len(before) != len(values) or not all(map(is_, before, values)):
            self._tuples[kind] = tuple(values)
        return self._tuples.get(kind, ())


def _local_task(task: objects.Task) -> model.LocalTask | None:
    if gone(task) or ended(task) or not task.spec.networks:
        return None
    return model.LocalTask(
        task_id=task.meta.id,
        address=task.address,
        networks=tuple(task.networks),
        dns_servers=tuple(task.spec.container.dns_servers),
        service_id=task.service_id,
    )


def _config(cluster: objects.Cluster) -> model.NetworkConfig:
    settings = cluster.network
    return model.NetworkConfig(
        host_pool=settings.host_pool,
        vip_pool=settings.vip_pool,
        vxlan_id=settings.vxlan_id,
        vxlan_port=settings.vxlan_port,
        mtu_bytes=settings.mtu_bytes,
        trusted_cidrs=tuple(settings.trusted_cidrs),
        dns_domain=settings.dns_domain,
        encryption=encryption_of(cluster),
        ipv6_prefix=settings.ipv6_prefix,
    )


def _host(node: objects.Node) -> model.Host:
    return model.Host(
        node_id=node.meta.id,
        name=node.meta.name,
        address=str(ipaddress.ip_address(node.address)),  # as the kernel writes it
        block=node.network.block,
        tunnel_address=node.network.tunnel_address,
        tunnel_mac=node.network.tunnel_mac,
        ordinal=node.network.ordinal,
        zone=node.meta.labels.get("zone", ""),
        keys=tuple((key.epoch, key.public_key) for key in node.network.keys),
        other_addresses=tuple(each for each in node.description.addresses if each != node.address),
    )


def frontend_value(frontend: objects.Frontend) -> model.Frontend:
    return model.Frontend(
        service_id=frontend.service_id,
        service=frontend.service,
        app=frontend.app,
        tenant=frontend.tenant,
        vip=frontend.vip,
        ports=tuple(
            model.Port(
                protocol=port.protocol,
                target=port.target,
                published=port.published,
                name=port.name,
                address=port.host_ip,
                host_mode=port.mode == objects.PortSpec.MODE_HOST,
            )
            for port in frontend.ports
        ),
        networks=tuple(frontend.networks),
        aliases=tuple(
            (network_id, name)
            for network_id, names in sorted(frontend.network_aliases.items())
            for name in names.values
        ),
        balance=_balance(frontend.balance),
        labels=tuple(sorted(frontend.labels.items())),
        policy=policy_of_service(frontend.policy, frontend.service_id, frontend.tenant, frontend.app, frontend.service)
        if frontend.HasField("policy")
        else None,
    )


def _balance(balance: objects.Balance) -> model.Balance:
    # A policy of a later version is balanced at random by this one.
    return model.Balance(policy=POLICIES.get(balance.policy, "random"), local_first=balance.local_first)


def _endpoint(endpoint: objects.Endpoint) -> model.Endpoint:
    return model.Endpoint(
        task_id=endpoint.task_id,
        task_name=endpoint.task_name,
        service_id=endpoint.service_id,
        node_id=endpoint.node_id,
        address=endpoint.address,
        ready=endpoint.ready,
        networks=tuple(endpoint.networks),
        weight=endpoint.weight or 1,
        zone=endpoint.zone,
    )


def network_value(network: objects.Network) -> model.NetworkInfo:
    return model.NetworkInfo(
        network_id=network.meta.id,
        ordinal=network.ordinal,
        name=network.meta.name,
        app=network.app,
        tenant=network.meta.tenant,
        internal=network.internal,
        ipv6_disabled=network.ipv6_disabled,
        closed=network.closed,
    )
