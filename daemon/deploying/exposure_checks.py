"""What must hold of a service's ports, balancing and floating addresses, whoever wrote its spec. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from daemon.errors import Kind, Refused
from daemon.orchestration import constraints
from daemon.orchestration.host_ports import HostPort, clash, host_port, port_text
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store

PROTOCOLS = ("tcp", "udp", "sctp")
WEIGHT_MAX = 100
FLOATING_MAX = 8  # of one service


def port_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """In words; nothing where all is well."""
    seen: dict[tuple[str, int], list[HostPort]] = {}
    for port in spec.ports:
        if port.protocol not in PROTOCOLS:
            yield f"port {port.target} has the protocol {port.protocol!r}; use {', '.join(PROTOCOLS)}"
        if not 0 < port.target < 65_536 or port.published >= 65_536:
            yield f"port {port.published}:{port.target} is outside of 1 to 65535"
        if not port.published:
            continue
        asked = host_port(port)
        words = port_text(asked)
        known = seen.setdefault(asked[:2], [])
        if any(clash(asked, other) for other in known):
            yield f"port {words} is published twice"
        known.append(asked)
        if not spec.networks:
            yield f"port {words} is published, but the service has no network"
        if port.host_ip and (address := _address(port.host_ip)) is None:
            yield f"port {words} is to be published at {port.host_ip!r}, which is not an IP address"
        elif port.host_ip and address is not None and address.version == 6 and address.is_loopback:
            yield f"port {words}: hosts publish to themselves over IPv4 only; use 127.0.0.1"
        if spec.endpoint_mode == objects.ENDPOINT_MODE_DNSRR and port.mode != objects.PortSpec.MODE_HOST:
            yield f"port {words} is published on every host, which endpoint mode dnsrr does not do: use mode host"


def check_ports_between(app: control.AppSpec) -> None:
    """A published port belongs to one service; ports of host mode may meet, since the scheduler keeps their tasks
    on different hosts. Raises Refused."""
    published: dict[tuple[str, int], list[tuple[str, objects.PortSpec]]] = {}
    for name in sorted(app.services):
        for port in app.services[name].ports:
            if not port.published:
                continue
            known = published.setdefault((port.protocol, port.published), [])
            for other, held in known:
                both_host = port.mode == held.mode == objects.PortSpec.MODE_HOST
                if other != name and not both_host and clash(host_port(port), host_port(held)):
                    raise Refused(
                        f"services {other} and {name} both publish port {port.published}/{port.protocol}; "
                        "a published port belongs to one service"
                    )
            known.append((name, port))


def host_network_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    """Of a service whose tasks share their host's network. In words."""
    container = spec.container
    if not container.host_network:
        return
    if spec.networks:
        yield "it shares its host's network, so it cannot be on networks of the cluster"
    for name in sorted(container.sysctls):
        if name.startswith("net."):
            yield f"it shares its host's network, whose setting {name} is not its own"
    if container.dns_servers or container.dns_search or container.dns_options:
        yield "it shares its host's network and asks for names as the host does: leave out dns"


def balance_problems(balance: objects.Balance) -> Iterator[str]:
    """In words. Raises Refused for a constraint that cannot be read."""
    if balance.policy not in objects.BalancePolicy.values():
        yield f"its balancing policy {balance.policy} is not known to this version"
    if balance.policy == objects.BALANCE_POLICY_WEIGHTED and not balance.weights:
        yield "it is balanced by weight and has no weights"
    for weight in balance.weights:
        constraints.parse(weight.constraint)
        if not 1 <= weight.weight <= WEIGHT_MAX:
            yield f"the weight {weight.weight} of hosts with {weight.constraint} is not between 1 and {WEIGHT_MAX}"


def floating_problems(spec: objects.ServiceSpec) -> Iterator[str]:
    if len(spec.floating_addresses) > FLOATING_MAX:
        yield f"it has {len(spec.floating_addresses)} floating addresses; at most {FLOATING_MAX} are possible"
    for text in spec.floating_addresses:
        address = _address(text)
        if address is None:
            yield f"the floating address {text!r} is not an IP address"
        elif address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
            yield f"{text} cannot be an address that moves between hosts"


def check_floating(store: Store, app: control.AppSpec, tenant: str) -> None:
    """Floating addresses are from outside of the cluster's own, and of one tenant. Raises Refused."""
    wanted = {text: name for name in sorted(app.services) for text in app.services[name].floating_addresses}
    if not wanted:
        return
    pools = [
        ipaddress.ip_network(pool)
        for cluster in store.table(objects.Cluster)
        for pool in (cluster.network.host_pool, cluster.network.vip_pool, cluster.network.ipv6_prefix)
        if pool
    ]
    hosts = {node.address: node.meta.name for node in store.table(objects.Node)}
    for text, name in wanted.items():
        address = ipaddress.ip_address(text)
        for pool in pools:
            if address.version == pool.version and address in pool:
                raise Refused(f"service {name}: the floating address {text} is in {pool}, the cluster's own")
        if text in hosts:
            raise Refused(f"service {name}: {text} is the address of host {hosts[text]} and cannot float")
    for service in store.table(objects.Service):
        for text in wanted.keys() & set(service.spec.floating_addresses):
            if service.meta.tenant != tenant:
                raise Refused(
                    f"service {wanted[text]} cannot have the floating address {text}: it belongs to another tenant",
                    Kind.CONFLICT,
                )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
