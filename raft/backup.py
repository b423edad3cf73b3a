"""The store as a backup file, and a backup file as a snapshot. The format is in proto/backup_file.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from proto.backup_file import BackupBroken, BackupWriter, read_header, read_stream
from proto.backup_pb2 import BackupHeader
from raft.features import LevelUnknown
from raft.schema import KINDS
from raft.snapshot import Outgoing, Snapshot, read_records, take
from raft.store import Store

PIECE_BYTES = 256 * 1024


def backup_of(store: Store, header: BackupHeader, term: int = 0) -> Iterator[bytes]:
    """The bytes of a backup of `store` as it is when the first of them is asked for; some are empty.

    The objects are shared and never altered, so the store may change while the rest is written. `header` is
    the caller's but for format, revision and tables; `term` is the newest known. A piece takes some
    milliseconds of CPU.
    """
    snapshot = take(store, store.revision, term, ())
    header.revision = snapshot.revision
    header.format = 1
    for kind in KINDS:
        header.tables[kind.table] = kind.message.DESCRIPTOR.full_name
    writer = BackupWriter()
    yield writer.begin(header)
    outgoing = Outgoing(snapshot, PIECE_BYTES)
    yield writer.add(outgoing.piece.data)
    while not outgoing.piece.sha256:
        assert outgoing.advance(outgoing.piece.offset_bytes + len(outgoing.piece.data))
        yield writer.add(outgoing.piece.data)
    yield writer.end()


def read_backup(file: BinaryIO) -> tuple[BackupHeader, Snapshot]:
    """Header and state of a whole, undamaged file. BackupBroken."""
    header = read_header(file)
    file.seek(0)
    try:
        snapshot = read_records(read_stream(file))
    except BackupBroken:
        raise
    except LevelUnknown as error:
        raise BackupBroken(f"it is of a newer Fairway ({header.fairway_version}): {error}") from error
    except ValueError as error:
        raise BackupBroken(f"the state in it is not complete: {error}") from error
    if snapshot.revision != header.revision:
        raise BackupBroken("its header is of another revision than its state")
    return header, snapshot
