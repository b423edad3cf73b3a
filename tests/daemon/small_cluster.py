"""A cluster of one voter for tests: identity on disk, its objects in a store, no raft."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.config import Config, HostConfig
from daemon.errors import Refused
from daemon.identity.authority import cluster_of, open_authority
from daemon.identity.certificates import CertificateAuthority, ca_fingerprint
from daemon.identity.identity import Identity
from daemon.identity.initialise import initialise
from daemon.identity.tokens import create
from daemon.ids import new_id
from daemon.joining.join_registration import Registration
from net.addresses import tunnel_mac
from proto import control_pb2, host_pb2
from proto import objects_pb2 as objects
from proto.store_pb2 import TransactionResult
from raft.store import Store
from raft.transaction import TransactionBuilder

HOUR_MS = 3_600_000
ADDRESS = "127.0.0.1"


def now_unix_ms() -> int:
    return time.time_ns() // 1_000_000


def config_in(folder: Path, name: str = "", address: str = "") -> Config:
    host = HostConfig(name=name, state_folder=folder / "state", run_folder=folder / "run", advertise_address=address)
    return Config(host=host)


class SmallCluster:
    """`store` holds what `fairway init` commits; `register` is what the leader does for a joining host."""

    def __init__(self, folder: Path, name: str = "first", begun_unix_ms: int | None = None) -> None:
        self.config = config_in(folder, name)
        self.store = Store()
        request = control_pb2.InitialiseRequest(cluster_name="test", address=ADDRESS)
        begun = begun_unix_ms if begun_unix_ms is not None else now_unix_ms()
        new = initialise(self.config, request, objects.NodeDescription(hostname=name), begun, tunnel_mac)
        self.reply = new.reply
        self.identity: Identity = new.identity
        self.identity.save()
        self.apply(new.transaction)
        self.registration = Registration(self.identity, lambda: self, tunnel_mac)  # type: ignore[arg-type, return-value]
        self.registered_from: list[str] = []

    def apply(self, transaction: Any) -> None:
        result, _ = self.store.apply(transaction, self.store.revision + 1)
        if result.code != TransactionResult.OK:
            raise Refused(result.message)

    async def commit(self, plan: Callable[..., tuple[Any, Any]], actor: str) -> tuple[Any, int]:
        """As daemon.writer.Writer, without consensus."""
        builder, value = plan(self.store, now_unix_ms(), new_id)
        self.apply(builder.build(new_id(), actor, now_unix_ms()))
        return value, self.store.revision

    async def register(self, request: host_pb2.JoinRequest, address: str) -> host_pb2.JoinReply:
        self.registered_from.append(address)
        return await self.registration.register(request, address)

    def authority(self) -> CertificateAuthority:
        return open_authority(cluster_of(self.store), self.identity.cluster_key)

    def token(
        self,
        role: objects.NodeRole.ValueType = objects.NODE_ROLE_WORKER,
        valid_ms: int = HOUR_MS,
        revoked: bool = False,
    ) -> str:
        """The text of a new token."""
        fingerprint = ca_fingerprint(self.identity.ca_certificate)
        token, text = create(new_id(), "test", role, now_unix_ms() + valid_ms, fingerprint)
        token.revoked = revoked
        self.apply(TransactionBuilder().create(token).build(new_id(), "test", now_unix_ms()))
        return text
