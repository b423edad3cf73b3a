"""Frames and snapshots: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import contextlib
import hashlib
import pickle

import pysyncobj.pickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from proto import objects_pb2 as objects
from raft import ambient as _ambient  # noqa: F401 - takes pickle out of PySyncObj
from raft import snapshot as snapshots
from raft.codec import NUMBER_MAX, decode, decode_hello, encode, encode_hello, length_of
from raft.messages import (
    Append,
    AppendReply,
    Message,
    SnapshotChunk,
    SnapshotReply,
    StaleTerm,
    TakeOver,
    Vote,
    VoteRequest,
)
from raft.settings import Peer
from raft.store import Store
from raft.transaction import TransactionBuilder

MESSAGES: list[Message] = [
    VoteRequest(4, 7, 3, rehearsal=True),
    VoteRequest(4, 7, 3, handed_over=True),
    Vote(4),
    Vote(4, rehearsal=True),
    Append(4, 7, 3, 6, ((b"\0x", 8, 3), (b"\1", 9, 4)), 12),
    Append(4, 7, 3, 6),
    AppendReply(4, 8, True, False, 12),
    TakeOver(4),
    StaleTerm(5),
    SnapshotChunk(4, 100, 3, 512, b"data", b"digest", 3),
    SnapshotReply(4, 100, 1024, 3),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@given(some.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_random_bytes_are_a_message_or_a_value_error(content: bytes) -> None:
    for reader in (decode, decode_hello, snapshots.decode):
        try:
            reader(content)
        except ValueError:
            continue


@given(some.sampled_from(MESSAGES), some.integers(0, 200), some.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_is_a_message_or_a_value_error(message: Message, at: int, flip: int) -> None:
    content = bytearray(encode(message))
    content[at % len(content)] ^= flip
    with contextlib.suppress(ValueError):
        decode(bytes(content))


@pytest.mark.parametrize(
    "message",
    [
        Append(4, 7, 3, 6, ((b"\0x", 9, 3),)),  # a gap
        Append(4, 7, 3, 6, ((b"\0x", 8, 2),)),  # a term that goes back
        Append(4, 7, 3, 6, ((b"\0x", 8, 5),)),  # a term beyond the leader's
        Append(4, 7, 3, 6, ((b"", 8, 3),)),
        StaleTerm(NUMBER_MAX + 1),
    ],
)
def test_impossible_messages_are_refused(message: Message) -> None:
    with pytest.raises(ValueError, match=r"out of place|above"):
        decode(encode(message))


def test_lengths_and_greetings_are_bounded() -> None:
    assert decode_hello(encode_hello(7000, "")) == (7000, "")
    with pytest.raises(ValueError, match="greeting"):
        decode_hello(encode(TakeOver(1)))
    with pytest.raises(ValueError, match="allowed"):
        length_of(b"\xff\xff\xff\xff", 1000)
    with pytest.raises(ValueError, match="allowed"):
        length_of(b"\0\0\0\0", 1000)


def test_nothing_of_pysyncobj_can_pickle() -> None:
    for use in (pysyncobj.pickle.loads, pysyncobj.pickle.dumps):
        with pytest.raises(RuntimeError, match="pickle is not used"):
            use(pickle.dumps(1))


def filled() -> Store:
    store = Store()
    for number in range(50):
        tenant = objects.Tenant(meta=objects.Meta(id=f"t{number}", name=f"t{number}"), description="d" * 100)
        store.apply(TransactionBuilder().create(tenant).build(f"r{number}", "", 1), number + 1)
    return store


def carried(outgoing: snapshots.Outgoing) -> snapshots.Snapshot:
    incoming = snapshots.Incoming(outgoing.index, outgoing.term, 10**6)
    while True:
        assert incoming.add(outgoing.piece)
        if outgoing.piece.sha256:
            return incoming.finish(outgoing.piece.sha256)
        assert outgoing.advance(incoming.offset_bytes)


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
def test_a_snapshot_arrives_whole_in_pieces(chunk_bytes: int) -> None:
    store = filled()
    snapshot = snapshots.take(store, 60, 4, (Peer("a", "10.0.0.1", 7000),))
    assert carried(snapshots.Outgoing(snapshot, chunk_bytes)) == snapshot


def test_damaged_snapshots_are_refused() -> None:
    outgoing = snapshots.Outgoing(snapshots.take(filled(), 60, 4, ()), 10**6)
    data = outgoing.piece.data
    for damaged in (data[:-1], data + b"\0", data[:50] + b"\xff" + data[51:], b""):
        with pytest.raises(ValueError, match=r".+"):
            snapshots.decode(damaged)
        incoming = snapshots.Incoming(60, 4, 10**6)
        incoming.add(snapshots.Piece(0, damaged, b""))
        with pytest.raises(ValueError, match="checksum"):
            incoming.finish(outgoing.piece.sha256)
    with pytest.raises(ValueError, match="another entry"):
        incoming = snapshots.Incoming(61, 4, 10**6)
        incoming.add(outgoing.piece)
        incoming.finish(hashlib.sha256(data).digest())
    with pytest.raises(ValueError, match="longer"):
        snapshots.Incoming(60, 4, 100).add(outgoing.piece)
