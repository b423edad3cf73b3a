"""The format of a backup file: written by whoever holds the state, read by whoever checks or restores it.

    "fairway backup\\n"                            15 bytes
    length (4 bytes, big-endian), BackupRecord     header; pieces of data; end

The data pieces, joined and inflated (one zlib stream, RFC 1950), are the stream of a snapshot: records of
RaftSnapshotRecord behind lengths of their own. The end holds the SHA-256 of every byte before it, so that a
cut, a flipped bit or a swapped piece is noticed before anything is made of the file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from proto import objects_pb2 as _objects  # noqa: F401 - its messages must be in the descriptor pool
from proto.backup_pb2 import BackupEnd, BackupHeader, BackupRecord
from proto.raft_pb2 import RaftSnapshotHeader, RaftSnapshotRecord

MAGIC = b"fairway backup\n"
FORMAT = 1
RECORD_BYTES_MAX = 16 << 20
DATA_BYTES_MAX = 4 << 30  # of the snapshot's stream
COMPRESSION_LEVEL = 6
_LENGTH = struct.Struct(">I")


class BackupBroken(ValueError):
    """The file is no backup, is damaged, or is of a newer format; the message says which."""


class BackupWriter:
    """Makes the bytes of a file: `begin`, then `add` for every piece of the snapshot's stream, then `end`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._compress = zlib.compressobj(COMPRESSION_LEVEL)
        self._data_bytes = 0

    def begin(self, header: BackupHeader) -> bytes:
        """The first bytes."""
        self._digest.update(MAGIC)
        return MAGIC + self._record(BackupRecord(header=header))

    def add(self, piece: bytes) -> bytes:
        """What a piece of the stream becomes; often nothing yet, for it gathers before it is compressed."""
        self._data_bytes += len(piece)
        return self._data(self._compress.compress(piece))

    def end(self) -> bytes:
        """The last bytes."""
        rest = self._data(self._compress.flush())
        last = BackupEnd(data_bytes=self._data_bytes, sha256=self._digest.digest())
        return rest + self._record(BackupRecord(end=last))

    def _data(self, compressed: bytes) -> bytes:
        return self._record(BackupRecord(data=compressed)) if compressed else b""

    def _record(self, record: BackupRecord) -> bytes:
        content = record.SerializeToString()
        framed = _LENGTH.pack(len(content)) + content
        self._digest.update(framed)
        return framed


@dataclass
class BackupContents:
    """What a whole and undamaged file holds."""

    header: BackupHeader
    snapshot: RaftSnapshotHeader = field(default_factory=RaftSnapshotHeader)
    counts: dict[str, int] = field(default_factory=dict)  # table -> objects
    data_bytes: int = 0


def read_header(file: BinaryIO) -> BackupHeader:
    """The header at the beginning of `file`. BackupBroken."""
    return _header(_records(file, hashlib.sha256()))


def read_stream(file: BinaryIO) -> Iterator[RaftSnapshotRecord]:
    """All records of the snapshot, in order. BackupBroken, at the latest after the last one."""
    digest = hashlib.sha256()
    records = _records(file, digest)
    _header(records)
    yield from _snapshot_records(_inflated(records, file, digest))


def verify(file: BinaryIO) -> BackupContents:
    """Reads the whole file and every object in it. BackupBroken where anything is not as it was written."""
    contents = BackupContents(read_header(file))
    classes = {table: _message_class(table, name) for table, name in contents.header.tables.items()}
    file.seek(0)
    finished = False
    for count, record in enumerate(read_stream(file), 1):
        contents.data_bytes += record.ByteSize() + _LENGTH.size
        which = record.WhichOneof("record")
        if (which == "header") != (count == 1) or finished:
            raise BackupBroken(f"record {count} of the state is out of place")
        if which == "header":
            contents.snapshot = record.header
        elif which == "object":
            table = record.object.table
            if table not in classes:
                raise BackupBroken(f"record {count} of the state is of a table {table!r} that the header does not name")
            _parse(classes[table], record.object.object, f"an object of {table}")
            contents.counts[table] = contents.counts.get(table, 0) + 1
        elif which == "end":
            finished = True
            if record.end.record_count != count:
                raise BackupBroken(f"the state has {count} records, its end says {record.end.record_count}")
    if not finished:
        raise BackupBroken("the state in it ends early")
    if contents.snapshot.revision != contents.header.revision:
        raise BackupBroken("its header is of another revision than its state")
    return contents


def _message_class(table: str, name: str) -> type[Message]:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        raise BackupBroken(
            f"it holds {table} as {name}, which this version does not know: use the newer software"
        ) from None
    return message_factory.GetMessageClass(descriptor)


def _parse(kind: type[Message], content: bytes, what: str) -> None:
    try:
        kind.FromString(content)
    except DecodeError as error:
        raise BackupBroken(f"{what} cannot be read") from error


def _header(records: Iterator[tuple[BackupRecord, bytes]]) -> BackupHeader:
    first, _ = next(records, (BackupRecord(), b""))
    if first.WhichOneof("record") != "header":
        raise BackupBroken("it does not begin with a header")
    if first.header.format != FORMAT:
        raise BackupBroken(
            f"it has format {first.header.format}, written by Fairway {first.header.fairway_version}; "
            f"this version reads format {FORMAT}: use the newer software"
        )
    return first.header


def _records(file: BinaryIO, digest: hashlib._Hash) -> Iterator[tuple[BackupRecord, bytes]]:
    """Every record, with the digest of all before it."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise BackupBroken("this is no backup of Fairway" if magic else "it is empty")
    digest.update(magic)
    while True:
        prefix = file.read(_LENGTH.size)
        if not prefix:
            return
        length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
        if not 0 < length <= RECORD_BYTES_MAX:
            raise BackupBroken("a record's length is damaged")
        content = file.read(length)
        if len(content) < length:
            raise BackupBroken("it ends within a record: it was cut off")
        try:
            record = BackupRecord.FromString(content)
        except DecodeError as error:
            raise BackupBroken("a record cannot be read: bytes of it have changed") from error
        before = digest.digest()
        digest.update(prefix + content)
        yield record, before


def _inflated(records: Iterator[tuple[BackupRecord, bytes]], file: BinaryIO, digest: hashlib._Hash) -> Iterator[bytes]:
    inflate, total = zlib.decompressobj(), 0
    for record, digest_before in records:
        which = record.WhichOneof("record")
        if which == "data":
            try:
                piece = inflate.decompress(record.data, RECORD_BYTES_MAX)
                while piece:
                    total += len(piece)
                    if total > DATA_BYTES_MAX:
                        raise BackupBroken(f"its state is larger than {DATA_BYTES_MAX} bytes")
                    yield piece
                    piece = inflate.decompress(inflate.unconsumed_tail, RECORD_BYTES_MAX)
            except zlib.error as error:
                raise BackupBroken("its data cannot be inflated: bytes of it have changed") from error
        elif which == "end":
            if record.end.sha256 != digest_before:
                raise BackupBroken("its checksum differs: bytes of it have changed")
            if record.end.data_bytes != total or not inflate.eof:
                raise BackupBroken("it holds less than was written")
            if file.read(1):
                raise BackupBroken("something follows its end")
            return
        else:
            raise BackupBroken("a record is out of place")
    raise BackupBroken("it has no end: it was cut off")


def _snapshot_records(pieces: Iterable[bytes]) -> Iterator[RaftSnapshotRecord]:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        position = 0
        while len(buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > RECORD_BYTES_MAX:
                raise BackupBroken("a record of the state is too long")
            if len(buffer) - position < _LENGTH.size + length:
                break
            content = bytes(buffer[position + _LENGTH.size : position + _LENGTH.size + length])
            position += _LENGTH.size + length
            try:
                yield RaftSnapshotRecord.FromString(content)
            except DecodeError as error:
                raise BackupBroken("a record of the state cannot be read") from error
        del buffer[:position]
    if buffer:
        raise BackupBroken("the state in it ends within a record")
