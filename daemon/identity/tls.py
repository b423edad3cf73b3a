"""TLS of this host: contexts for raft and joining, credentials for gRPC; new handshakes see renewals.

TLS 1.3 only on our own sockets, no session tickets: every connection shows its certificate. gRPC's core
chooses 1.2 or 1.3 itself.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import cast

import grpc

from daemon.identity import certificates, keys
from daemon.identity.identity import Identity

logger = logging.getLogger(__name__)


class NodeTls:
    """TLS with the identity's certificate as it is at each call; raft's `TlsSource`."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def server_context(self) -> ssl.SSLContext:
        """For a listener between nodes: the client must show a certificate of our CA."""
        context = self._own_context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._identity.ca_pem.decode())
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a connection to a node; the caller compares `peer_node_id` with whom it meant to reach."""
        context = self._own_context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # nodes are known by id, never by address
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._identity.ca_pem.decode())
        return context

    def peer_node_id(self, certificate_der: bytes) -> str:
        """The node that a verified certificate belongs to. Raises ValueError: another cluster, no node."""
        peer = certificates.parse_peer(certificate_der, self._identity.cluster_id)
        if peer.kind is not certificates.PeerKind.NODE:
            raise ValueError(f"{peer.actor} is no node")
        return peer.name

    def join_server_context(self) -> ssl.SSLContext:
        """For the join port: hosts that join have no certificate yet, so none is asked for."""
        return self._own_context(ssl.PROTOCOL_TLS_SERVER)

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server: clients must show a certificate of our CA; each handshake takes the newest
        certificate of ours."""
        shown_generation = self._identity.generation

        def newest() -> grpc.ServerCertificateConfiguration:
            # Called by gRPC's core in a thread of its own, before each handshake.
            nonlocal shown_generation
            if self._identity.generation == shown_generation:
                # None says "as before"; grpc's type stubs do not know that.
                return cast(grpc.ServerCertificateConfiguration, None)
            shown_generation = self._identity.generation
            return self._certificate_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._certificate_configuration(), newest, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For one gRPC channel, with the certificate of now: make a new channel after a renewal."""
        return grpc.ssl_channel_credentials(
            root_certificates=self._identity.ca_pem,
            private_key=keys.private_key_pem(self._identity.key),
            certificate_chain=certificates.certificate_pem(self._identity.certificate),
        )

    @staticmethod
    def channel_options(node_id: str | None = None) -> Sequence[tuple[str, str]]:
        """Options for a channel to just that node; None: to any node that serves the API."""
        name = certificates.API_SERVER_NAME if node_id is None else certificates.node_server_name(node_id)
        return (("grpc.ssl_target_name_override", name),)

    def _certificate_configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (
            keys.private_key_pem(self._identity.key),
            certificates.certificate_pem(self._identity.certificate),
        )
        return grpc.ssl_server_certificate_configuration([pair], self._identity.ca_pem)

    def _own_context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        context.load_cert_chain(self._identity.certificate_path, self._identity.key_path)
        return context
