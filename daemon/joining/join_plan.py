"""Whether a host may join, and what the store then holds: pure; leases, MAC and signature are arguments."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from daemon.config_checks import unicast_address_error
from daemon.errors import Kind, Refused
from daemon.identity import tokens
from daemon.identity.authority import cluster_of
from daemon.identity.identity import KNOWN_NODES_MAX
from daemon.identity.keys import PublicKey, node_id_of, public_key_sha256
from daemon.identity.network_settings import check_outside_pools
from daemon.identity.node_names import labels_error, node_name_error
from daemon.leader.feature_level_plan import too_old
from proto import host_pb2
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder


class HostLeases(Protocol):
    """What a new node leases: see daemon/orchestration/leases.py."""

    def host_block(self, node_id: str) -> tuple[objects.Lease, str]: ...
    def node_ordinal(self, node_id: str) -> tuple[objects.Lease, int]: ...


# The certificate's PEM and when it expires (Unix time in ms).
Sign = Callable[[PublicKey], tuple[bytes, int]]


def plan_join(
    store: Store,
    request: host_pb2.JoinRequest,
    key: PublicKey,
    now_unix_ms: int,
    leases: HostLeases,
    tunnel_mac: Callable[[str], str],
    sign: Sign,
    cluster_key: bytes,
) -> tuple[TransactionBuilder, host_pb2.JoinReply]:
    """The transaction that adds (or, for the same key, renews) the node, and the reply to it.

    `key` is the request's, proved to be the host's. Raises Refused: DENIED for the token, INVALID for what
    the host says of itself, CONFLICT for a name or address that another node has, EXHAUSTED.
    """
    cluster = cluster_of(store)
    token = store.get(objects.JoinToken, request.token_id)
    problem = tokens.check(token, request.token_secret, now_unix_ms)
    if problem is not None or token is None:
        raise Refused(problem or "the join token is not known", Kind.DENIED)
    _check_request(store, cluster, request)
    about = request.description
    old = too_old(store, request.name, about.feature_level, about.fairway_version)
    if old:
        raise Refused(f"host {request.name!r} cannot join: {old}, then join again", Kind.NOT_POSSIBLE)
    node_id = node_id_of(key)
    _check_free(store, request, node_id)
    before = store.get(objects.Node, node_id)
    builder = TransactionBuilder()
    certificate_pem, expires_unix_ms = sign(key)
    if before is None:
        node = objects.Node(
            meta=objects.Meta(id=node_id, tenant="default", format=1),
            availability=objects.AVAILABILITY_ACTIVE,
            public_key_sha256=public_key_sha256(key),
            state=objects.NODE_STATE_UNSPECIFIED,
            state_since_unix_ms=now_unix_ms,
            network=_lease_network(builder, leases, node_id, tunnel_mac),
        )
    else:
        node = objects.Node()
        node.CopyFrom(before)
        # What a host with a vote becomes is for the leader's membership to decide, not for a token.
        if before.voter and token.role != objects.NODE_ROLE_VOTER:
            raise Refused(
                f"{before.meta.name} votes in this cluster; a worker's token cannot change that. "
                "Remove the node first with `fairway node rm`",
                Kind.CONFLICT,
            )
    _describe(node, request, token.role, expires_unix_ms)
    if before is None:
        builder.create(node)
    else:
        builder.update(node)
    used = objects.JoinToken()
    used.CopyFrom(token)
    used.used_count += 1
    builder.update(used)
    return builder, _reply(store, cluster, node, certificate_pem, cluster_key)


def host_network(block: str, ordinal: int, mac: str) -> objects.NodeNetwork:
    """A node's place on the overlay: the first host address of its block is its own."""
    first = ipaddress.ip_network(block).network_address + 1
    return objects.NodeNetwork(block=block, tunnel_address=str(first), tunnel_mac=mac, ordinal=ordinal)


def _lease_network(
    builder: TransactionBuilder, leases: HostLeases, node_id: str, tunnel_mac: Callable[[str], str]
) -> objects.NodeNetwork:
    block_lease, block = leases.host_block(node_id)
    ordinal_lease, ordinal = leases.node_ordinal(node_id)
    builder.create(block_lease)
    builder.create(ordinal_lease)
    return host_network(block, ordinal, tunnel_mac(node_id))


def _check_request(store: Store, cluster: objects.Cluster, request: host_pb2.JoinRequest) -> None:
    problem = node_name_error(request.name) or labels_error(request.labels) or unicast_address_error(request.address)
    ports = {"API": request.api_port, "raft": request.raft_port, "join": request.join_port}
    for what, port in ports.items():
        if not 0 < port < 65_536:
            problem = problem or f"{port} is not a port for its {what}"
    if problem is not None:
        raise Refused(f"host {request.name[:64]!r} cannot join: {problem}")
    check_outside_pools(cluster.network, request.address)
    _check_family(store, request)


def _check_family(store: Store, request: host_pb2.JoinRequest) -> None:
    """The overlay has one kind of outer packet: every host must be reached by the same family."""
    wanted = ipaddress.ip_address(request.address).version
    for node in store.table(objects.Node):
        if ipaddress.ip_address(node.address).version != wanted:
            other = 10 - wanted  # 4 and 6
            raise Refused(
                f"host {request.name!r} cannot join: its address {request.address} is an IPv{wanted} address, and the "
                f"cluster's hosts reach each other by IPv{other} ({node.meta.name} is at {node.address}); "
                f"give the host's IPv{other} address: --address ADDRESS"
            )


def _check_free(store: Store, request: host_pb2.JoinRequest, node_id: str) -> None:
    named = store.table(objects.Node).unique("name", request.name)
    if named is not None and named.meta.id != node_id:
        raise Refused(
            f"the cluster has a node named {request.name} already, with another key, at {named.address}. "
            f"Give another name, or remove a host that was reinstalled with `fairway node rm {request.name}`",
            Kind.CONFLICT,
        )
    for node in store.table(objects.Node):
        if node.address == request.address and node.meta.id != node_id:
            raise Refused(
                f"address {request.address} is that of node {node.meta.name} already. Give this host's own "
                f"address, or remove the old node with `fairway node rm {node.meta.name}`",
                Kind.CONFLICT,
            )


def _describe(
    node: objects.Node,
    request: host_pb2.JoinRequest,
    role: objects.NodeRole.ValueType,
    certificate_expires_unix_ms: int,
) -> None:
    node.meta.name = request.name
    for label, value in request.labels.items():
        node.meta.labels[label] = value
    node.role = role
    node.address = request.address
    node.api_port = request.api_port
    node.raft_port = request.raft_port
    node.join_port = request.join_port
    node.certificate_expires_unix_ms = certificate_expires_unix_ms
    node.description.CopyFrom(request.description)


def _reply(
    store: Store, cluster: objects.Cluster, node: objects.Node, certificate_pem: bytes, cluster_key: bytes
) -> host_pb2.JoinReply:
    voter = node.role == objects.NODE_ROLE_VOTER
    others = (
        other
        for other in store.table(objects.Node)
        if other.role == objects.NODE_ROLE_VOTER and other.meta.id != node.meta.id
    )
    # Those that have a vote first: they are sure to be there.
    known = sorted(others, key=lambda other: (not other.voter, other.meta.id))
    return host_pb2.JoinReply(
        node_id=node.meta.id,
        certificate_pem=certificate_pem,
        cluster_id=cluster.meta.id,
        cluster_name=cluster.meta.name,
        voter=voter,
        cluster_key=cluster_key if voter else b"",
        nodes=known[:KNOWN_NODES_MAX],
    )
