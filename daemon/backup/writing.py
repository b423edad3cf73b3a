"""A backup of this host's store: the header, the sealed cluster key, and the bytes a piece at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from daemon.errors import Kind, Refused
from daemon.identity.authority import cluster_of
from daemon.identity.host_description import fairway_version
from daemon.identity.identity import Identity
from proto.backup_pb2 import BackupHeader, BackupSeal
from proto.passphrase import KEY_BYTES, sealed
from raft.backup import backup_of
from raft.member import Member


async def backup_pieces(
    member: Member, identity: Identity, seal: BackupSeal, key: bytes, now_unix_ms: int
) -> AsyncGenerator[bytes, None]:
    """The bytes of a backup of `member.store` as it is now; `key` seals the cluster key. Raises Refused.

    Every piece is made in another thread: compressing would hold up the daemon.
    """
    if identity.cluster_key is None:
        raise Refused("this host has no cluster key, so it can make no backup: only voters can", Kind.NOT_POSSIBLE)
    if len(key) != KEY_BYTES:
        raise Refused(f"the key that seals the cluster key has {len(key)} bytes, it must have {KEY_BYTES}")
    cluster = cluster_of(member.store)
    header = BackupHeader(
        cluster_id=cluster.meta.id,
        cluster_name=cluster.meta.name,
        created_unix_ms=now_unix_ms,
        fairway_version=fairway_version(),
        node_id=identity.node_id,
        seal=sealed(seal, key, identity.cluster_key, cluster.meta.id),
    )
    # The first piece lists the store, which is this thread's; the others only read objects that nobody alters.
    pieces = backup_of(member.store, header, member.status().term)
    yield next(pieces)
    while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
        if piece:
            yield piece
