"""The frames of the join protocol: a length of 4 bytes, big-endian, then that many bytes of protobuf."""

from __future__ import annotations

from typing import TypeVar

import trio
from google.protobuf.message import DecodeError, Message

REQUEST_BYTES_MAX = 64 << 10
REPLY_BYTES_MAX = 1 << 20  # also of the greeting

_LENGTH_BYTES = 4
_RECEIVE_BYTES = 16 << 10

M = TypeVar("M", bound=Message)


class FrameError(ValueError):
    """What came is no frame of the join protocol, or too large, or was cut short."""


async def send_frame(stream: trio.abc.SendStream, message: Message) -> None:
    """Sends one message. Raises trio.BrokenResourceError where the peer is gone."""
    data = message.SerializeToString()
    await stream.send_all(len(data).to_bytes(_LENGTH_BYTES) + data)


async def receive_frame(stream: trio.abc.ReceiveStream, kind: type[M], size_bytes_max: int) -> M:
    """Receives one message; never holds more than its length. Raises FrameError, trio.BrokenResourceError."""
    size_bytes = int.from_bytes(await _receive_exactly(stream, _LENGTH_BYTES))
    if size_bytes > size_bytes_max:
        raise FrameError(f"a frame of {size_bytes} bytes was announced; {size_bytes_max} are allowed")
    message = kind()
    try:
        message.ParseFromString(await _receive_exactly(stream, size_bytes))
    except DecodeError as error:
        raise FrameError(f"the frame holds no {kind.DESCRIPTOR.name}") from error
    return message


async def _receive_exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < size_bytes:
        data = await stream.receive_some(min(_RECEIVE_BYTES, size_bytes - len(received)))
        if not data:
            raise FrameError(f"the connection ended after {len(received)} of {size_bytes} bytes")
        received += data
    return bytes(received)
