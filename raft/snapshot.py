"""A snapshot: the whole store as a stream of checksummed protobuf records, sent in chunks.

The stream is a header, objects, remembered requests and an end that counts the records; each record is
preceded by its length (4 bytes, big-endian). The objects are the store's own, which nobody alters, so
the sender needs no copy of the state and no fork: it serialises a chunk when the receiver asks for it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError, Message

from proto import raft_pb2
from proto.raft_pb2 import RaftSnapshotRecord
from proto.store_pb2 import TransactionResult
from raft.entry import membership_message, peers_of
from raft.features import FEATURE_LEVEL, level, level_of, require
from raft.schema import kind_of_table
from raft.settings import Peer
from raft.store import Store

FORMAT = 1
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Snapshot:
    """The state after the entry `index` of `term`."""

    index: int
    term: int
    revision: int
    membership: tuple[Peer, ...]
    objects: list[tuple[str, Message]] = field(default_factory=list)
    requests: list[tuple[str, TransactionResult]] = field(default_factory=list)
    feature_level: int = 1  # of the cluster


@dataclass(frozen=True)
class Piece:
    """One chunk of the stream; `sha256` of the whole stream in the last one, else empty."""

    offset_bytes: int
    data: bytes
    sha256: bytes


def take(store: Store, index: int, term: int, membership: tuple[Peer, ...]) -> Snapshot:
    """The store as it is now."""
    found, requests = list(store.objects()), store.requests()
    return Snapshot(index, term, store.revision, membership, found, requests, level_of(store))


class Outgoing:
    """The stream of one snapshot on its way to one member; holds one chunk at a time."""

    def __init__(self, snapshot: Snapshot, chunk_bytes: int) -> None:
        self.index, self.term = snapshot.index, snapshot.term
        self._pieces = _pieces(snapshot, chunk_bytes)
        self.piece = next(self._pieces)

    def advance(self, offset_bytes: int) -> bool:
        """The receiver wants what begins at `offset_bytes`: True where that is the piece after `piece`."""
        if self.piece.sha256 or offset_bytes != self.piece.offset_bytes + len(self.piece.data):
            return False
        self.piece = next(self._pieces)
        return True


class Incoming:
    """The stream of one snapshot as it arrives."""

    def __init__(
        self, index: int, term: int, bytes_max: int, in_order: bool = True, feature_level: int = FEATURE_LEVEL
    ) -> None:
        self.index, self.term = index, term
        self._feature_level = feature_level
        self._in_order = in_order
        self._content = bytearray()
        self._bytes_max = bytes_max

    @property
    def offset_bytes(self) -> int:
        """What is wanted next."""
        return len(self._content)

    def add(self, piece: Piece) -> bool:
        """Takes a chunk if it is due or the first again. ValueError where the stream is too long."""
        if piece.offset_bytes == 0:
            self._content.clear()
        if piece.offset_bytes != len(self._content) and self._in_order:
            return False
        if len(self._content) + len(piece.data) > self._bytes_max:
            raise ValueError(f"longer than {self._bytes_max} bytes (raft.snapshot_bytes_max)")
        self._content += piece.data
        return True

    def finish(self, sha256: bytes) -> Snapshot:
        """The snapshot; ValueError for anything that is not exactly one, LevelUnknown for one of a newer build."""
        if hashlib.sha256(self._content).digest() != sha256:
            raise ValueError("its checksum differs")
        snapshot = decode(bytes(self._content), self._feature_level)
        if (snapshot.index, snapshot.term) != (self.index, self.term):
            raise ValueError("it is of another entry than announced")
        return snapshot


def decode(content: bytes, feature_level: int = FEATURE_LEVEL) -> Snapshot:
    """Reads a whole stream; ValueError for anything that is not exactly one, LevelUnknown."""
    return read_records(_records(content), feature_level)


def read_records(records: Iterator[RaftSnapshotRecord], feature_level: int = FEATURE_LEVEL) -> Snapshot:
    """The snapshot that a stream's records make; ValueError for anything that is not exactly one.

    LevelUnknown where the cluster it comes from uses what this build does not know.
    """
    header = next(records, RaftSnapshotRecord()).header
    if header.format != FORMAT:
        raise ValueError(f"format {header.format}, this software knows {FORMAT}")
    require(feature_level, header.feature_level)
    members, of_cluster = peers_of(header.membership), level(header.feature_level)
    snapshot = Snapshot(header.index, header.term, header.revision, members, feature_level=of_cluster)
    count = 1
    for record in records:
        count += 1
        which = record.WhichOneof("record")
        if which == "object":
            snapshot.objects.append((record.object.table, _object(record.object)))
        elif which == "request":
            snapshot.requests.append((record.request.request_id, record.request.result))
        elif which == "end" and record.end.record_count == count and next(records, None) is None:
            return snapshot
        else:
            raise ValueError(f"record {count} is out of place")
    raise ValueError("it ends early")


def _object(record: raft_pb2.RaftSnapshotObject) -> Message:
    kind = kind_of_table(record.table)
    if kind is None:
        raise ValueError(f"unknown table {record.table!r}")
    stored = kind.message()
    try:
        stored.ParseFromString(record.object)
    except DecodeError as error:
        raise ValueError(f"an object of {record.table} cannot be read") from error
    return stored


def _records(content: bytes) -> Iterator[RaftSnapshotRecord]:
    position = 0
    while position < len(content):
        if position + _LENGTH.size > len(content):
            raise ValueError("it ends within a length")
        (length,) = _LENGTH.unpack_from(content, position)
        position += _LENGTH.size
        if position + length > len(content):
            raise ValueError("it ends within a record")
        try:
            yield RaftSnapshotRecord.FromString(content[position : position + length])
        except DecodeError as error:
            raise ValueError(f"a record cannot be read: {error}") from error
        position += length


def _encoded(snapshot: Snapshot) -> Iterator[bytes]:
    yield RaftSnapshotRecord(
        header=raft_pb2.RaftSnapshotHeader(
            format=FORMAT,
            index=snapshot.index,
            term=snapshot.term,
            revision=snapshot.revision,
            membership=membership_message(snapshot.membership),
            feature_level=snapshot.feature_level,
        )
    ).SerializeToString()
    for table, stored in snapshot.objects:
        one = raft_pb2.RaftSnapshotObject(table=table, object=stored.SerializeToString())
        yield RaftSnapshotRecord(object=one).SerializeToString()
    for request_id, result in snapshot.requests:
        request = raft_pb2.RaftSnapshotRequest(request_id=request_id, result=result)
        yield RaftSnapshotRecord(request=request).SerializeToString()
    end = raft_pb2.RaftSnapshotEnd(record_count=len(snapshot.objects) + len(snapshot.requests) + 2)
    yield RaftSnapshotRecord(end=end).SerializeToString()


def _pieces(snapshot: Snapshot, chunk_bytes: int) -> Iterator[Piece]:
    digest = hashlib.sha256()
    offset = 0
    gathered = bytearray()
    for record in _encoded(snapshot):
        gathered += _LENGTH.pack(len(record)) + record
        while len(gathered) > chunk_bytes:
            data = bytes(gathered[:chunk_bytes])
            del gathered[:chunk_bytes]
            digest.update(data)
            yield Piece(offset, data, b"")
            offset += len(data)
    digest.update(gathered)
    yield Piece(offset, bytes(gathered), digest.digest())
