"""A new cluster: CA, keys, first node, operator and tokens, and the transaction that begins it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.config import Config
from daemon.config_checks import unicast_address_error
from daemon.errors import Kind, Refused
from daemon.identity import keys, tokens
from daemon.identity.authority import sealed_ca_key
from daemon.identity.certificates import (
    CertificateAuthority,
    ca_fingerprint,
    load_certificate,
    validity_unix_ms,
)
from daemon.identity.identity import Identity, Membership
from daemon.identity.network_settings import complete
from daemon.identity.node_names import labels_error, node_name_error, node_name_from_hostname
from daemon.identity.own_address import is_own_address, own_address
from daemon.identity.places import place_text
from daemon.identity.sealing import new_key
from daemon.ids import new_id
from daemon.joining.join_plan import host_network
from daemon.leader.encryption_plan import state_at_start
from daemon.orchestration.leases import LeasePool
from proto import control_pb2
from proto import objects_pb2 as objects
from proto.store_pb2 import Transaction, TransactionResult
from raft.features import FEATURE_LEVEL
from raft.store import Store
from raft.transaction import TransactionBuilder

FIRST_OPERATOR = "admin"
DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class NewCluster:
    """What `initialise` made. Nothing of it is on disk: the caller writes the identity's keys, starts raft,
    commits the transaction, saves the identity, and only then hands out the reply."""

    identity: Identity
    transaction: Transaction
    reply: control_pb2.InitialiseReply


def initialise(
    config: Config,
    request: control_pb2.InitialiseRequest,
    description: objects.NodeDescription,
    now_unix_ms: int,
    tunnel_mac: Callable[[str], str],
) -> NewCluster:
    """A new cluster with this host as its only node. Raises Refused: a setting that cannot work, in words."""
    node_name = request.node_name or config.host.name or node_name_from_hostname(description.hostname)
    address = first_address(config, request.address)
    cluster_name = request.cluster_name or "fairway"
    problem = node_name_error(node_name) or labels_error(request.labels) or _cluster_name_error(cluster_name)
    if problem is not None:
        raise Refused(f"cannot initialise: {problem}")
    cluster_id, cluster_key, key = new_id(), new_key(), keys.new_private_key()
    settings = complete(request.network, address, cluster_id)
    authority = CertificateAuthority.create(cluster_id, now_unix_ms)
    cluster = objects.Cluster(
        meta=objects.Meta(id=cluster_id, name=cluster_name, tenant=DEFAULT_TENANT, format=1),
        network=settings,
        ca_certificate_pem=authority.certificate_pem(),
        ca_private_key_sealed=sealed_ca_key(authority, cluster_id, cluster_key),
        encryption=state_at_start(settings, now_unix_ms),
        feature_level=FEATURE_LEVEL,
    )
    certificate = load_certificate(authority.sign_node(key.public_key(), cluster_id, now_unix_ms))
    node = first_node(config, key.public_key(), validity_unix_ms(certificate)[1])
    node.meta.name, node.address, node.state_since_unix_ms = node_name, address, now_unix_ms
    node.meta.labels.update(request.labels)
    node.description.CopyFrom(description)
    voter_token, voter_text = _token(authority, objects.NODE_ROLE_VOTER, now_unix_ms)
    worker_token, worker_text = _token(authority, objects.NODE_ROLE_WORKER, now_unix_ms)
    mac = tunnel_mac(node.meta.id)
    transaction = _first_transaction(cluster, node, (voter_token, worker_token), mac, now_unix_ms)
    membership = Membership(cluster_id, cluster_name, node.meta.id, node_name, True, address)
    folder, ca = config.identity_folder, authority.certificate
    identity = Identity(folder, membership, key, certificate, ca, cluster_key)
    reply = first_operator(authority, cluster_id, now_unix_ms)
    reply.node_id = node.meta.id
    reply.address = place_text(address, config.api.port)
    reply.voter_token, reply.worker_token = voter_text, worker_text
    return NewCluster(identity, transaction, reply)


def first_node(config: Config, key: keys.PublicKey, certificate_expires_unix_ms: int) -> objects.Node:
    """The only voter of a cluster, without name, address and network."""
    return objects.Node(
        meta=objects.Meta(id=keys.node_id_of(key), tenant=DEFAULT_TENANT, format=1),
        role=objects.NODE_ROLE_VOTER,
        availability=objects.AVAILABILITY_ACTIVE,
        api_port=config.api.port,
        raft_port=config.raft.port,
        join_port=config.join.port,
        public_key_sha256=keys.public_key_sha256(key),
        certificate_expires_unix_ms=certificate_expires_unix_ms,
        voter=True,
    )


def _token(
    authority: CertificateAuthority, role: objects.NodeRole.ValueType, now_unix_ms: int
) -> tuple[objects.JoinToken, str]:
    expires_unix_ms = now_unix_ms + tokens.VALID_MS_DEFAULT
    return tokens.create(new_id(), "", role, expires_unix_ms, ca_fingerprint(authority.certificate))


def first_operator(authority: CertificateAuthority, cluster_id: str, now_unix_ms: int) -> control_pb2.InitialiseReply:
    """The part of the reply that is the first operator's: a fresh key and its certificate."""
    key = keys.new_private_key()
    certificate = authority.sign_operator(key.public_key(), cluster_id, FIRST_OPERATOR, now_unix_ms)
    return control_pb2.InitialiseReply(
        cluster_id=cluster_id,
        operator_certificate_pem=certificate,
        operator_private_key_pem=keys.private_key_pem(key),
        ca_certificate_pem=authority.certificate_pem(),
    )


def _first_transaction(
    cluster: objects.Cluster,
    node: objects.Node,
    first_tokens: tuple[objects.JoinToken, ...],
    mac: str,
    now_unix_ms: int,
) -> Transaction:
    leases = LeasePool(_store_of(cluster, now_unix_ms))
    block_lease, block = leases.host_block(node.meta.id)
    ordinal_lease, ordinal = leases.node_ordinal(node.meta.id)
    node.network.CopyFrom(host_network(block, ordinal, mac))
    tenant = objects.Tenant(
        meta=objects.Meta(id=new_id(), name=DEFAULT_TENANT, tenant=DEFAULT_TENANT, format=1),
        description="for everything that nobody chose a tenant for",
    )
    builder = TransactionBuilder().create(cluster).create(tenant).create(node)
    builder.create(block_lease).create(ordinal_lease)
    for token in first_tokens:
        builder.create(token)
    return builder.build(new_id(), "local/init", now_unix_ms)


def _store_of(cluster: objects.Cluster, now_unix_ms: int) -> Store:
    """A store with nothing but the cluster: what the first leases are cut from."""
    store = Store()
    builder = TransactionBuilder().create(cluster)
    result, _ = store.apply(builder.build(new_id(), "local/init", now_unix_ms), 1)
    assert result.code == TransactionResult.OK, result.message
    return store


def first_address(config: Config, wanted: str) -> str:
    """The address of a host that no other has seen yet. Raises Refused."""
    address = wanted or config.host.advertise_address
    if not address:
        return own_address()
    problem = unicast_address_error(address)
    if problem is not None:
        raise Refused(f"cannot initialise: {problem}")
    if not is_own_address(address):
        raise Refused(
            f"cannot initialise: {address} is not an address of this host; give one that `ip address` shows",
            Kind.NOT_POSSIBLE,
        )
    return address


def _cluster_name_error(name: str) -> str | None:
    problem = node_name_error(name)
    return None if problem is None else problem.replace("a node's name", "a cluster's name")
