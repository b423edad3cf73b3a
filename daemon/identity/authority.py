"""The CA as the store keeps it: its key sealed under the cluster key, opened only to sign."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from daemon.identity.certificates import CertificateAuthority
from daemon.identity.sealing import CONTEXT_CA_KEY, SealBroken, seal, unseal
from proto import objects_pb2 as objects
from raft.store import Store


def sealed_ca_key(authority: CertificateAuthority, cluster_id: str, cluster_key: bytes) -> bytes:
    """For Cluster.ca_private_key_sealed."""
    return seal(cluster_key, authority.key_pem(), _context(cluster_id))


def open_authority(cluster: objects.Cluster, cluster_key: bytes | None) -> CertificateAuthority:
    """The CA with its key. Raises Refused on a host without the cluster key, or with a wrong one."""
    if cluster_key is None:
        raise Refused("this host has no cluster key: only voters sign certificates", Kind.NOT_POSSIBLE)
    try:
        key_pem = unseal(cluster_key, cluster.ca_private_key_sealed, _context(cluster.meta.id))
        return CertificateAuthority.from_pem(cluster.ca_certificate_pem, key_pem)
    except (SealBroken, ValueError) as error:
        raise Refused(f"the cluster's CA cannot sign on this host: {error}", Kind.NOT_POSSIBLE) from error


def cluster_of(store: Store) -> objects.Cluster:
    """The one Cluster object. Raises Refused where the store has none yet."""
    cluster = next(iter(store.table(objects.Cluster)), None)
    if cluster is None:
        raise Refused("this host does not know its cluster yet; try again in some seconds", Kind.UNAVAILABLE)
    return cluster


def _context(cluster_id: str) -> str:
    return f"{CONTEXT_CA_KEY}/{cluster_id}"
