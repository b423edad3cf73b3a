"""From a backup to a cluster of which this host is the only voter. Nothing is on disk before `write`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from daemon.backup.disaster_plan import restore_plan
from daemon.config import Config
from daemon.deploying.node_changes_plan import plan_remove_node
from daemon.errors import Kind, Refused
from daemon.identity.authority import cluster_of, open_authority
from daemon.identity.certificates import CertificateAuthority, load_certificate, validity_unix_ms
from daemon.identity.identity import Identity, Membership, load_or_create_key
from daemon.identity.initialise import first_address, first_node, first_operator
from daemon.identity.node_names import labels_error, node_name_error, node_name_from_hostname
from daemon.identity.places import place_text
from daemon.ids import new_id
from daemon.joining.join_plan import host_network
from daemon.orchestration.leases import LeasePool
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from proto.backup_file import BackupBroken
from proto.passphrase import WrongPassphrase, unsealed
from proto.store_pb2 import TransactionResult
from raft.backup import read_backup
from raft.recovery import begin_anew
from raft.settings import Peer
from raft.snapshot import Snapshot
from raft.store import Store
from raft.transaction import TransactionBuilder

ACTOR = "local/restore"


@dataclass(frozen=True)
class Restored:
    """A cluster as it was in the backup, with this host in it; `write` makes it this host's."""

    config: Config
    identity: Identity
    store: Store
    snapshot: Snapshot
    reply: control.RestoreReply
    now_unix_ms: int

    def write(self) -> None:
        """State first, then the identity whose last file makes the host a member. MemberFault, OSError."""
        membership = self.identity.membership
        me = Peer(membership.node_id, membership.address, self.config.raft.port)
        folder = self.config.host.state_folder / "raft"
        begin_anew(folder, me, self.store, self.snapshot.index, self.snapshot.term, self.now_unix_ms)
        self.identity.save()


def restored(
    config: Config,
    file: BinaryIO,
    request: control.RestoreRequest,
    description: objects.NodeDescription,
    now_unix_ms: int,
    tunnel_mac: Callable[[str], str],
) -> Restored:
    """Reads, checks and plans everything. Raises Refused: a damaged file, a wrong passphrase, a setting that
    cannot work; IdentityBroken; OSError. Only this host's own key may be new on disk."""
    name = request.node_name or config.host.name or node_name_from_hostname(description.hostname)
    problem = node_name_error(name) or labels_error(request.labels)
    if problem is not None:
        raise Refused(f"cannot restore: {problem}")
    address = first_address(config, request.address)
    try:
        header, snapshot = read_backup(file)
        cluster_key = unsealed(header.seal, request.sealing_key, header.cluster_id)
    except BackupBroken as error:
        raise Refused(f"cannot restore: the backup cannot be used: {error}") from error
    except WrongPassphrase as error:
        raise Refused(f"cannot restore: {error}", Kind.DENIED) from error
    store = Store()
    store.restore(snapshot.objects, snapshot.requests, snapshot.revision)
    cluster = cluster_of(store)
    authority = open_authority(cluster, cluster_key)
    key = load_or_create_key(config.identity_folder)
    certificate = load_certificate(authority.sign_node(key.public_key(), cluster.meta.id, now_unix_ms))
    node = first_node(config, key.public_key(), validity_unix_ms(certificate)[1])
    node.meta.name, node.address = name, address
    node.meta.labels.update(request.labels)
    node.state_since_unix_ms = now_unix_ms
    node.description.CopyFrom(description)
    replaced = _replace_nodes(store, node, now_unix_ms)
    plan = restore_plan(store, header, node, replaced)
    _add_node(store, node, tunnel_mac, now_unix_ms)
    membership = Membership(cluster.meta.id, cluster.meta.name, node.meta.id, name, True, address)
    identity = Identity(config.identity_folder, membership, key, certificate, authority.certificate, cluster_key)
    reply = _reply(authority, cluster, now_unix_ms)
    reply.node_id, reply.address = node.meta.id, place_text(address, config.api.port)
    reply.plan.CopyFrom(plan)
    return Restored(config, identity, store, snapshot, reply, now_unix_ms)


def _replace_nodes(store: Store, node: objects.Node, now_unix_ms: int) -> list[objects.Node]:
    """Removes the nodes whose name, address or key this host has now: it stands in their place."""
    replaced = [
        other
        for other in store.table(objects.Node)
        if other.meta.name == node.meta.name or other.address == node.address or other.meta.id == node.meta.id
    ]
    for other in replaced:
        request = control.RemoveNodeRequest(node=other.meta.id, force=True)
        _apply(store, plan_remove_node(store, request)[1], now_unix_ms)
    for other in list(store.table(objects.Node)):  # nobody but this host votes, and nobody has been heard
        changed = objects.Node()
        changed.CopyFrom(other)
        changed.voter = False
        _apply(store, TransactionBuilder().update(changed), now_unix_ms)
    return replaced


def _add_node(store: Store, node: objects.Node, tunnel_mac: Callable[[str], str], now_unix_ms: int) -> None:
    leases = LeasePool(store)
    block_lease, block = leases.host_block(node.meta.id)
    ordinal_lease, ordinal = leases.node_ordinal(node.meta.id)
    node.network.CopyFrom(host_network(block, ordinal, tunnel_mac(node.meta.id)))
    _apply(store, TransactionBuilder().create(node).create(block_lease).create(ordinal_lease), now_unix_ms)


def _apply(store: Store, builder: TransactionBuilder, now_unix_ms: int) -> None:
    result, _ = store.apply(builder.build(new_id(), ACTOR, now_unix_ms), store.revision + 1)
    if result.code != TransactionResult.OK:
        raise Refused(f"cannot restore: {result.message}", Kind.CONFLICT)


def _reply(authority: CertificateAuthority, cluster: objects.Cluster, now_unix_ms: int) -> control.RestoreReply:
    operator = first_operator(authority, cluster.meta.id, now_unix_ms)
    return control.RestoreReply(
        operator_certificate_pem=operator.operator_certificate_pem,
        operator_private_key_pem=operator.operator_private_key_pem,
        ca_certificate_pem=operator.ca_certificate_pem,
        cluster_name=cluster.meta.name,
        cluster_id=cluster.meta.id,
    )
