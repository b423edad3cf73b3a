"""Many UDP datagrams a system call: recvmmsg(2) and sendmmsg(2), which Python's socket module does not have.

A busy name server gives up the interpreter's lock once for a whole batch instead of twice for each datagram:
each time it may have to wait a switch interval to get it back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

DATAGRAMS_MAX = 32  # bounds how long a batch keeps other threads waiting
QUERY_BYTES_MAX = 2048
ANSWER_BYTES_MAX = 1232
_MSG_DONTWAIT, _MSG_TRUNC, _MSG_WAITFORONE = 0x40, 0x20, 0x10000
_ADDRESS_BYTES = 16  # struct sockaddr_in

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: a header and how many bytes were transferred."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class DatagramBatch:
    """The datagrams of one wake-up on an IPv4 socket, and the answers to them. One thread uses it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        count = DATAGRAMS_MAX
        sizes = (_ADDRESS_BYTES, QUERY_BYTES_MAX, ANSWER_BYTES_MAX)
        self._buffers = [(ctypes.c_char * (count * size))() for size in sizes]
        names, queries, answers = (ctypes.addressof(each) for each in self._buffers)
        self._names, self._queries, self._answers = (memoryview(each).cast("B") for each in self._buffers)
        self._names_start = names
        self._incoming, self._in_vectors = (_Message * count)(), (_Vector * count)()
        self._outgoing, self._out_vectors = (_Message * count)(), (_Vector * count)()
        for number in range(count):
            vector = self._in_vectors[number]
            vector.base, vector.length = queries + number * QUERY_BYTES_MAX, QUERY_BYTES_MAX
            _fill(self._incoming[number], names + number * _ADDRESS_BYTES, ctypes.addressof(vector))
            vector = self._out_vectors[number]
            vector.base = answers + number * ANSWER_BYTES_MAX
            _fill(self._outgoing[number], names, ctypes.addressof(vector))
        self._received = memoryview(self._incoming).cast("B").cast("I")
        self._receivers = memoryview(self._outgoing).cast("B").cast("P")
        self._lengths = memoryview(self._out_vectors).cast("B").cast("P")
        self._answer_count = 0

    def receive(self) -> int:
        """Waits for datagrams; how many there are. Raises OSError; 0 where the socket was shut down."""
        count = _libc.recvmmsg(self._descriptor, ctypes.byref(self._incoming), DATAGRAMS_MAX, _MSG_WAITFORONE, None)
        if count < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        if count == 1 and not self._received[_NAME_LENGTH]:
            return 0  # a datagram always has a sender
        return int(count)

    def query(self, number: int) -> bytes:
        """Empty for one that is longer than any query of ours."""
        word = number * _MESSAGE_WORDS
        if self._received[word + _FLAGS] & _MSG_TRUNC:
            return b""
        start = number * QUERY_BYTES_MAX
        return bytes(self._queries[start : start + self._received[word + _LENGTH]])

    def sender(self, number: int) -> bytes:
        """The four bytes of the sender's address."""
        start = number * _ADDRESS_BYTES + 4
        return bytes(self._names[start : start + 4])

    def sender_port(self, number: int) -> int:
        port: int = struct.unpack_from(">H", self._names, number * _ADDRESS_BYTES + 2)[0]
        return port

    def answer(self, number: int, identifier: bytes, rest: bytes) -> None:
        """Prepares an answer to one of the datagrams: `identifier` (2 bytes) and at most 1230 bytes behind it."""
        place = self._answer_count
        start, size = place * ANSWER_BYTES_MAX, len(rest) + 2
        assert size <= ANSWER_BYTES_MAX
        self._answers[start : start + 2] = identifier
        self._answers[start + 2 : start + size] = rest
        self._lengths[2 * place + 1] = size
        self._receivers[place * _MESSAGE_POINTERS] = self._names_start + number * _ADDRESS_BYTES
        self._answer_count = place + 1

    def send(self) -> int:
        """Sends what is prepared, without waiting; returns how many the kernel did not take."""
        count, sent, refused = self._answer_count, 0, 0
        self._answer_count = 0
        while sent < count:
            done = _libc.sendmmsg(
                self._descriptor,
                ctypes.byref(self._outgoing, sent * ctypes.sizeof(_Message)),
                count - sent,
                _MSG_DONTWAIT,
            )
            if done > 0:
                sent += done
            elif ctypes.get_errno() != errno.EINTR:
                refused += 1  # this one; the others may go elsewhere
                sent += 1
        return refused


def wake(datagrams: socket.socket) -> None:
    """Ends a `receive` that waits in another thread: shutdown(2) wakes it, though UDP then calls it an error."""
    try:
        datagrams.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise


def _fill(message: _Message, name: int, vector: int) -> None:
    header = message.header
    header.name, header.name_length = name, _ADDRESS_BYTES
    header.vectors, header.vector_count = vector, 1


_MESSAGE_WORDS = ctypes.sizeof(_Message) // 4
_MESSAGE_POINTERS = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_void_p)  # the first is the name
_NAME_LENGTH = _Header.name_length.offset // 4  # the header comes first
_FLAGS = _Header.flags.offset // 4
_LENGTH = _Message.length.offset // 4
