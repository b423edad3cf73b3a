"""When a certificate is renewed, how loud a failed try is, and for whom the leader signs: pure."""

from __future__ import annotations

import enum

from daemon.errors import Kind, Refused
from daemon.identity.authority import cluster_of, open_authority
from daemon.identity.certificates import load_certificate, validity_unix_ms
from daemon.identity.keys import node_id_of, public_key_sha256, requested_key
from proto import host_pb2
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder

RETRY_MS_MIN = 10_000
RETRY_MS_MAX = 3_600_000
WARN_LEFT_FRACTION = 1 / 4  # of its lifetime: a third is left when renewal begins
ALARM_LEFT_FRACTION = 1 / 10

_JITTER_FRACTION = 1 / 20


class Urgency(enum.IntEnum):
    """How a failed renewal is reported."""

    CALM = 0
    WARN = 1
    ALARM = 2
    EXPIRED = 3


def renewal_due_unix_ms(begins_unix_ms: int, expires_unix_ms: int, jitter: float) -> int:
    """At 2/3 of the lifetime, up to 1/20 of it later: `jitter` (0 to 1) spreads hosts that joined at once."""
    lifetime_ms = expires_unix_ms - begins_unix_ms
    return begins_unix_ms + round(lifetime_ms * (2 / 3 + _JITTER_FRACTION * jitter))


def retry_wait_ms(failures: int, left_ms: int, jitter: float) -> int:
    """The wait after the `failures`-th failure in a row: doubles from RETRY_MS_MIN to RETRY_MS_MAX, never
    more than a tenth of what is left, at least RETRY_MS_MIN; `jitter` (0 to 1) takes off up to a half."""
    doubled_ms = RETRY_MS_MIN << min(max(failures - 1, 0), 20)
    wait_ms = min(doubled_ms, RETRY_MS_MAX, max(RETRY_MS_MIN, left_ms // 10))
    return max(RETRY_MS_MIN, round(wait_ms * (1 - jitter / 2)))


def urgency(begins_unix_ms: int, expires_unix_ms: int, now_unix_ms: int) -> Urgency:
    """How near the end is, for who reports a failure."""
    left_ms = expires_unix_ms - now_unix_ms
    lifetime_ms = max(1, expires_unix_ms - begins_unix_ms)
    if left_ms <= 0:
        return Urgency.EXPIRED
    if left_ms < lifetime_ms * ALARM_LEFT_FRACTION:
        return Urgency.ALARM
    return Urgency.WARN if left_ms < lifetime_ms * WARN_LEFT_FRACTION else Urgency.CALM


def sign_renewal(
    store: Store, cluster_key: bytes | None, node_id: str, request_pem: bytes, now_unix_ms: int
) -> tuple[TransactionBuilder, host_pb2.RenewCertificateReply]:
    """A new certificate for the own key of the calling node `node_id`, and its new expiry for the store.

    Raises Refused: not a node of this cluster (any more), or a request for another key than the node's.
    """
    cluster = cluster_of(store)
    node = store.get(objects.Node, node_id)
    if node is None:
        raise Refused(f"node {node_id} was removed from the cluster; let the host join again", Kind.DENIED)
    try:
        key = requested_key(request_pem)
    except ValueError as error:
        raise Refused(f"the certificate cannot be renewed: {error}") from error
    if node_id_of(key) != node_id or public_key_sha256(key) != node.public_key_sha256:
        raise Refused(f"the request is for another key than node {node.meta.name}'s", Kind.DENIED)
    pem = open_authority(cluster, cluster_key).sign_node(key, cluster.meta.id, now_unix_ms)
    changed = objects.Node()
    changed.CopyFrom(node)
    changed.certificate_expires_unix_ms = validity_unix_ms(load_certificate(pem))[1]
    reply = host_pb2.RenewCertificateReply(certificate_pem=pem, ca_certificate_pem=cluster.ca_certificate_pem)
    return TransactionBuilder().update(changed), reply
