"""From what the host knows of the cluster to what its kernel and resolver should do. Pure."""

from __future__ import annotations

from daemon.host_view import HostView
from net import model
from proto import objects_pb2 as objects

LIVE = (
    objects.TASK_STATE_ASSIGNED,
    objects.TASK_STATE_PREPARING,
    objects.TASK_STATE_STARTING,
    objects.TASK_STATE_RUNNING,
    objects.TASK_STATE_STOPPING,
)


def desired_network(view: HostView, node_id: str) -> model.DesiredNetwork | None:
    """None while the cluster or this host's own node is not known."""
    cluster, own = view.cluster, view.node(node_id)
    if cluster is None or own is None or not own.network.block:
        return None
    return model.DesiredNetwork(
        config=_config(cluster.network),
        local=_host(own),
        hosts=tuple(_host(node) for node in view.nodes if node.network.block),
        frontends=tuple(_frontend(frontend) for frontend in view.frontends),
        endpoints=tuple(_endpoint(endpoint) for endpoint in view.endpoints),
        networks=tuple(_network(network) for network in view.networks),
        tasks=tuple(
            model.LocalTask(task_id=task.meta.id, address=task.address, networks=tuple(task.networks))
            for task in view.tasks
            if task.address and task.status.state in LIVE
        ),
    )


def _config(settings: objects.NetworkSettings) -> model.NetworkConfig:
    return model.NetworkConfig(
        host_pool=settings.host_pool,
        vip_pool=settings.vip_pool,
        vxlan_id=settings.vxlan_id,
        vxlan_port=settings.vxlan_port,
        mtu_bytes=settings.mtu_bytes,
        trusted_cidrs=tuple(settings.trusted_cidrs),
        dns_domain=settings.dns_domain,
    )


def _host(node: objects.Node) -> model.Host:
    return model.Host(
        node_id=node.meta.id,
        name=node.meta.name,
        address=node.address,
        block=node.network.block,
        tunnel_address=node.network.tunnel_address,
        tunnel_mac=node.network.tunnel_mac,
        ordinal=node.network.ordinal,
    )


def _frontend(frontend: objects.Frontend) -> model.Frontend:
    return model.Frontend(
        service_id=frontend.service_id,
        service=frontend.service,
        app=frontend.app,
        tenant=frontend.tenant,
        vip=frontend.vip,
        ports=tuple(
            model.Port(protocol=port.protocol, target=port.target, published=port.published)
            for port in frontend.ports
        ),
        networks=tuple(frontend.networks),
        aliases=tuple(frontend.aliases),
    )


def _endpoint(endpoint: objects.Endpoint) -> model.Endpoint:
    return model.Endpoint(
        task_id=endpoint.task_id,
        task_name=endpoint.task_name,
        service_id=endpoint.service_id,
        node_id=endpoint.node_id,
        address=endpoint.address,
        ready=endpoint.ready,
        networks=tuple(endpoint.networks),
    )


def _network(network: objects.Network) -> model.NetworkInfo:
    return model.NetworkInfo(
        network_id=network.meta.id,
        ordinal=network.ordinal,
        name=network.meta.name,
        app=network.app,
        tenant=network.meta.tenant,
        internal=network.internal,
    )
