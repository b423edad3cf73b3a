"""Messages as bytes: protobuf frames behind a length of four bytes, big-endian.

Nothing but the known messages can come out of `decode`: no class is named by the sender and nothing
runs. Numbers are bounded so that later arithmetic on them stays sane.
"""

from __future__ import annotations

import struct

from google.protobuf.message import DecodeError

from proto import raft_pb2
from proto.raft_pb2 import RaftFrame
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

HELLO_FORMAT = 1
NUMBER_MAX = 2**62  # of terms, indexes, rounds and offsets
_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size


def framed(content: bytes) -> bytes:
    """A frame's content behind its length."""
    return _LENGTH.pack(len(content)) + content


def length_of(prefix: bytes, frame_bytes_max: int) -> int:
    """The length that a frame's first LENGTH_BYTES announce; ValueError where it is not allowed."""
    (length,) = _LENGTH.unpack(prefix)
    if not 0 < length <= frame_bytes_max:
        raise ValueError(f"a frame of {length} bytes; 1 to {frame_bytes_max} are allowed")
    return int(length)


def encode_hello(port: int, address: str) -> bytes:
    """The first frame of a connection: where the dialling member listens."""
    hello = raft_pb2.RaftHello(format=HELLO_FORMAT, port=port, address=address)
    return RaftFrame(hello=hello).SerializeToString()


def decode_hello(content: bytes) -> tuple[int, str]:
    """Port and address of a hello; ValueError for anything else."""
    frame = _parse(content)
    if frame.WhichOneof("body") != "hello" or frame.hello.format != HELLO_FORMAT:
        raise ValueError("the connection does not begin with a greeting of a known format")
    if not 0 < frame.hello.port < 65536:
        raise ValueError(f"port {frame.hello.port} in a greeting")
    return frame.hello.port, frame.hello.address


def encode(message: Message) -> bytes:
    """A frame's content."""
    frame = RaftFrame(term=message.term)
    match message:
        case Append():
            append = frame.append
            append.previous_index = message.previous_index
            append.previous_term = message.previous_term
            append.commit_index = message.commit_index
            append.round = message.round
            entries = append.entries
            for command, index, term in message.entries:
                entries.add(index=index, term=term, command=command)
        case AppendReply():
            reply = frame.append_reply
            reply.next_index = message.next_index
            reply.success = message.success
            reply.reset = message.reset
            reply.round = message.round
            reply.log_id = message.log_id
        case VoteRequest():
            frame.vote_request.last_log_index = message.last_log_index
            frame.vote_request.last_log_term = message.last_log_term
            frame.vote_request.rehearsal = message.rehearsal
            frame.vote_request.handed_over = message.handed_over
            frame.vote_request.log_id = message.log_id
        case Vote():
            frame.vote.rehearsal = message.rehearsal
            frame.vote.SetInParent()
        case TakeOver():
            frame.take_over.SetInParent()
        case StaleTerm():
            frame.stale_term.SetInParent()
        case SnapshotChunk():
            chunk = frame.snapshot_chunk
            chunk.snapshot_index = message.snapshot_index
            chunk.snapshot_term = message.snapshot_term
            chunk.offset_bytes = message.offset_bytes
            chunk.data = message.data
            chunk.sha256 = message.sha256
            chunk.round = message.round
        case SnapshotReply():
            frame.snapshot_reply.snapshot_index = message.snapshot_index
            frame.snapshot_reply.offset_bytes = message.offset_bytes
            frame.snapshot_reply.round = message.round
            frame.snapshot_reply.log_id = message.log_id
    return frame.SerializeToString()


def decode(content: bytes) -> Message:
    """The message in a frame's content; ValueError for anything that is not exactly one."""
    frame = _parse(content)
    term = _bounded(frame.term)
    match frame.WhichOneof("body"):
        case "append":
            return _append(term, frame.append)
        case "append_reply":
            reply = frame.append_reply
            return AppendReply(
                term,
                _bounded(reply.next_index),
                reply.success,
                reply.reset,
                _bounded(reply.round),
                _bounded(reply.log_id),
            )
        case "vote_request":
            request = frame.vote_request
            return VoteRequest(
                term,
                _bounded(request.last_log_index),
                _bounded(request.last_log_term),
                request.rehearsal,
                request.handed_over,
                _bounded(request.log_id),
            )
        case "vote":
            return Vote(term, frame.vote.rehearsal)
        case "take_over":
            return TakeOver(term)
        case "stale_term":
            return StaleTerm(term)
        case "snapshot_chunk":
            chunk = frame.snapshot_chunk
            return SnapshotChunk(
                term,
                _bounded(chunk.snapshot_index),
                _bounded(chunk.snapshot_term),
                _bounded(chunk.offset_bytes),
                chunk.data,
                chunk.sha256,
                _bounded(chunk.round),
            )
        case "snapshot_reply":
            answer = frame.snapshot_reply
            return SnapshotReply(
                term,
                _bounded(answer.snapshot_index),
                _bounded(answer.offset_bytes),
                _bounded(answer.round),
                _bounded(answer.log_id),
            )
    raise ValueError("a frame without a known message")


def _append(term: int, append: raft_pb2.RaftAppend) -> Append:
    index, before = _bounded(append.previous_index), _bounded(append.previous_term)
    entries = []
    for entry in append.entries:
        index += 1
        if entry.index != index or not before <= entry.term <= term or not entry.command:
            raise ValueError(f"entry {entry.index} of term {entry.term} is out of place")
        before = entry.term
        entries.append((entry.command, entry.index, entry.term))
    return Append(
        term,
        append.previous_index,
        append.previous_term,
        _bounded(append.commit_index),
        tuple(entries),
        _bounded(append.round),
    )


def _parse(content: bytes) -> RaftFrame:
    try:
        return RaftFrame.FromString(content)
    except DecodeError as error:
        raise ValueError(f"a frame that cannot be read: {error}") from error


def _bounded(number: int) -> int:
    if number > NUMBER_MAX:
        raise ValueError(f"number {number} in a frame is above {NUMBER_MAX}")
    return number
