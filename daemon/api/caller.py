"""Who calls a gRPC method: taken from the connection, never from a message."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import grpc.aio
from cryptography import x509

from daemon.errors import Kind, Refused
from daemon.identity.certificates import PeerIdentity, PeerKind, certificate_der, parse_peer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """A peer with a certificate of the cluster, or root on this host (`peer` is None)."""

    peer: PeerIdentity | None

    @property
    def local(self) -> bool:
        """Through the host's own Unix socket, which only root can open."""
        return self.peer is None

    @property
    def actor(self) -> str:
        """For Transaction.actor: "operator/anna", "node/ID", "local/root"."""
        return self.peer.actor if self.peer is not None else "local/root"


LOCAL_ROOT = Caller(None)


def caller_of(context: grpc.aio.ServicerContext[Any, Any], cluster_id: str | None) -> Caller:
    """The caller of a method. `cluster_id` is None on a host that belongs to no cluster: local calls only.

    Raises Refused (DENIED): no certificate, one of another cluster, or one that names nobody.
    """
    if context.peer().startswith("unix:"):
        return LOCAL_ROOT
    authentication = context.auth_context()
    chain = list(authentication.get("x509_pem_cert", ()))
    if cluster_id is None or not chain:
        raise Refused(
            "the call came without a certificate of this cluster; use a context of `fairway context ls`, "
            "or call from the host itself",
            Kind.DENIED,
        )
    try:
        certificate = x509.load_pem_x509_certificate(chain[0])
        return Caller(parse_peer(certificate_der(certificate), cluster_id))
    except ValueError as error:
        logger.warning("refused a call from %s: %s", context.peer(), error)
        raise Refused(f"the call was refused: {error}", Kind.DENIED) from error


def require_operator(caller: Caller) -> None:
    """Raises Refused (DENIED) unless an operator or root on this host calls."""
    if caller.peer is not None and caller.peer.kind is not PeerKind.OPERATOR:
        raise Refused(f"{caller.actor} is a host; this call is for operators", Kind.DENIED)


def require_node(caller: Caller) -> str:
    """The calling node's id. Raises Refused (DENIED) where no node calls."""
    if caller.peer is None or caller.peer.kind is not PeerKind.NODE:
        raise Refused(f"{caller.actor} is no host; this call is for the cluster's hosts", Kind.DENIED)
    return caller.peer.name
