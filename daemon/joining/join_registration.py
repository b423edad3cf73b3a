"""The leader's part of joining: checks, plans and commits, then answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon.errors import Refused
from daemon.identity.authority import cluster_of, open_authority
from daemon.identity.certificates import load_certificate, validity_unix_ms
from daemon.identity.identity import Identity
from daemon.identity.keys import PublicKey, requested_key
from daemon.joining.join_plan import plan_join
from daemon.orchestration.leases import LeasePool
from proto import host_pb2
from raft.store import Store
from raft.transaction import TransactionBuilder

if TYPE_CHECKING:
    from daemon.leader.writer import Writer

logger = logging.getLogger(__name__)


class Registration:
    """`register` is what daemon/joining/join_server.py calls; `writer` gives the leader's or raises Refused."""

    def __init__(self, identity: Identity, writer: Callable[[], Writer], tunnel_mac: Callable[[str], str]) -> None:
        self._identity = identity
        self._writer = writer
        self._tunnel_mac = tunnel_mac

    async def register(self, request: host_pb2.JoinRequest, peer_address: str) -> host_pb2.JoinReply:
        """Adds the host; the reply is sent only after the commit. Raises Refused."""
        try:
            key = requested_key(request.certificate_request_pem)
        except ValueError as error:
            raise Refused(f"the host's certificate request was refused: {error}") from error

        def plan(
            store: Store, now_unix_ms: int, _new_id: Callable[[], str]
        ) -> tuple[TransactionBuilder, host_pb2.JoinReply]:
            return self._plan(store, request, key, now_unix_ms)

        reply, _ = await self._writer().commit(plan, "join")
        logger.info("%s joined as %s (%s)", peer_address, request.name, reply.node_id)
        return reply

    def _plan(
        self, store: Store, request: host_pb2.JoinRequest, key: PublicKey, now_unix_ms: int
    ) -> tuple[TransactionBuilder, host_pb2.JoinReply]:
        cluster_key = self._identity.cluster_key
        cluster = cluster_of(store)

        def sign(public_key: PublicKey) -> tuple[bytes, int]:
            # Only now: a wrong token never gets as far as opening the CA's key.
            authority = open_authority(cluster, cluster_key)
            pem = authority.sign_node(public_key, cluster.meta.id, now_unix_ms)
            return pem, validity_unix_ms(load_certificate(pem))[1]

        return plan_join(store, request, key, now_unix_ms, LeasePool(store), self._tunnel_mac, sign, cluster_key or b"")
