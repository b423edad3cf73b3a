"""Netlink by hand: attributes, requests, acknowledgements and dumps over one socket; no pyroute2.

Formats: the kernel's `include/uapi/linux/netlink.h`. A netlink request is carried out inside `send`, so
its answer waits in the socket when `send` returns: the calls here block for microseconds, a large nftables
batch for some tens of milliseconds. Not safe for several threads at once; its owner locks.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from net.errors import KernelRefused

REQUEST, ACK, ECHO, DUMP = 0x1, 0x4, 0x8, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
PROTOCOL_ROUTE, PROTOCOL_NETFILTER = 0, 12

# Port ids of this process's sockets, which the kernel names in notifications of what they asked for.
own_ports: set[int] = set()

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_ERROR, _TYPE_DONE = 2, 3
_FLAG_CAPPED, _FLAG_ACK_TLVS, _FLAG_DUMP_INTERRUPTED = 0x100, 0x200, 0x10
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_STRICT = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 16 << 20
_RECEIVE_BYTES = 1 << 18
_ANSWER_SECONDS_MAX = 10.0
_BATCH_MESSAGES_MAX = 400  # their acknowledgements fit the receive buffer without being read meanwhile
_DUMP_ATTEMPTS_MAX = 5


class Request(NamedTuple):
    """One message: `kind` as in the header, the body after it, and what it asks in words."""

    kind: int
    flags: int
    body: bytes
    asked: str


class Answer(NamedTuple):
    kind: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def u32_network(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes of `data` from `start` on; stops at what is malformed."""
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & 0x3FFF, data[start + 4 : start + length]
        start += (length + 3) & ~3


def attribute_map(data: bytes, start: int = 0) -> dict[int, bytes]:
    return dict(attributes(data, start))


class Netlink:
    """A netlink socket in the network namespace of the thread that makes it."""

    def __init__(self, protocol: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise KernelRefused("open a netlink socket", error.errno or errno.EIO) from error
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(_ANSWER_SECONDS_MAX)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_STRICT):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        except OSError as error:
            self._socket.close()
            raise KernelRefused("set up a netlink socket", error.errno or errno.EIO) from error
        self._port: int = self._socket.getsockname()[0]
        own_ports.add(self._port)

    def close(self) -> None:
        own_ports.discard(self._port)
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Request) -> None:
        """Sends one request and waits for the kernel's acknowledgement; raises KernelRefused."""
        for _, error in self.ask_all([request]):
            raise error

    def ask_all(self, requests: Sequence[Request]) -> list[tuple[Request, KernelRefused]]:
        """Sends requests in as few system calls as possible; returns those refused, with why."""
        refused: list[tuple[Request, KernelRefused]] = []
        for start in range(0, len(requests), _BATCH_MESSAGES_MAX):
            chunk = requests[start : start + _BATCH_MESSAGES_MAX]
            first = self._sequence + 1
            parts = []
            for request in chunk:
                self._sequence += 1
                parts.append(self._pack(request, request.flags | REQUEST | ACK))
            self._send(b"".join(parts), chunk[0].asked)
            refused.extend(self._acknowledgements(chunk, first))
        return refused

    def transaction(self, begin: Request, requests: Sequence[Request], end: Request) -> None:
        """One nftables batch: all of it happens or none; raises KernelRefused for the first refusal."""
        if not requests:
            return
        parts = []
        by_sequence: dict[int, Request] = {}
        # Errors always come; success is acknowledged for the last request only (20,000 acknowledgements would
        # drown the socket). Kernels before 6.10 acknowledge no batch end.
        last = self._sequence + 1 + len(requests)
        for request in (begin, *requests, end):
            self._sequence += 1
            by_sequence[self._sequence] = request
            flags = request.flags | REQUEST | (ACK if self._sequence == last else 0)
            parts.append(self._pack(request, flags))
        self._send(b"".join(parts), begin.asked)
        first_error: KernelRefused | None = None
        while True:
            for _, sequence, answer, flags in self._receive(begin.asked):
                if answer.kind != _TYPE_ERROR or sequence not in by_sequence:
                    continue
                code, detail = _error_of(answer.body, flags)
                if code and first_error is None:
                    first_error = KernelRefused(by_sequence[sequence].asked, code, detail)
                if sequence == last:
                    if first_error is not None:
                        raise first_error
                    return
            if first_error is not None:
                self._drain()
                raise first_error

    def dump(self, request: Request) -> list[Answer]:
        """All answers to a dump; asked again when it changed under our hands."""
        answers: list[Answer] = []
        for _ in range(_DUMP_ATTEMPTS_MAX):
            answers, whole = self._dump_once(request)
            if whole:
                return answers
        return answers

    def get(self, request: Request) -> Answer | None:
        """The one answer to a request for one object; None where there is no such object."""
        self._sequence += 1
        self._send(self._pack(request, request.flags | REQUEST), request.asked)
        while True:
            for _, sequence, answer, flags in self._receive(request.asked):
                if sequence != self._sequence:
                    continue
                if answer.kind != _TYPE_ERROR:
                    return answer
                code, detail = _error_of(answer.body, flags)
                if code in (errno.ENODEV, errno.ENOENT, errno.ESRCH):
                    return None
                raise KernelRefused(request.asked, code, detail)

    def _pack(self, request: Request, flags: int) -> bytes:
        length = 16 + len(request.body)
        return _HEADER.pack(length, request.kind, flags, self._sequence, 0) + request.body + b"\0" * (-length % 4)

    def _send(self, data: bytes, asked: str) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelRefused(asked, error.errno or errno.EIO) from error

    def _receive(self, asked: str) -> list[tuple[int, int, Answer, int]]:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise KernelRefused(asked, error.errno or errno.ETIMEDOUT, "no answer") from error
        messages = []
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                break
            messages.append((offset, sequence, Answer(kind, data[offset + 16 : offset + length]), flags))
            offset += (length + 3) & ~3
        return messages

    def _acknowledgements(self, chunk: Sequence[Request], first: int) -> Iterator[tuple[Request, KernelRefused]]:
        missing = len(chunk)
        while missing:
            for _, sequence, answer, flags in self._receive(chunk[0].asked):
                index = sequence - first
                if answer.kind != _TYPE_ERROR or not 0 <= index < len(chunk):
                    continue
                missing -= 1
                code, detail = _error_of(answer.body, flags)
                if code:
                    yield chunk[index], KernelRefused(chunk[index].asked, code, detail)

    def _dump_once(self, request: Request) -> tuple[list[Answer], bool]:
        self._sequence += 1
        self._send(self._pack(request, request.flags | REQUEST | DUMP), request.asked)
        answers: list[Answer] = []
        whole = True
        while True:
            for _, sequence, answer, flags in self._receive(request.asked):
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _FLAG_DUMP_INTERRUPTED
                if answer.kind == _TYPE_DONE:
                    return answers, whole
                if answer.kind == _TYPE_ERROR:
                    code, detail = _error_of(answer.body, flags)
                    if code == errno.ENOENT:
                        return [], True
                    raise KernelRefused(request.asked, code, detail)
                answers.append(answer)

    def _drain(self) -> None:
        self._socket.setblocking(False)
        try:
            while self._socket.recv(_RECEIVE_BYTES):
                pass
        except OSError:
            pass
        finally:
            self._socket.settimeout(_ANSWER_SECONDS_MAX)


def _error_of(body: bytes, flags: int) -> tuple[int, str]:
    """The errno (0: none) and the extended acknowledgement's message of an NLMSG_ERROR."""
    code = -struct.unpack_from("=i", body)[0]
    if not flags & _FLAG_ACK_TLVS:
        return code, ""
    offset = 4 + 16
    if not flags & _FLAG_CAPPED:
        offset = 4 + struct.unpack_from("=I", body, 4)[0]
    message = attribute_map(body, offset).get(1, b"")
    return code, message.rstrip(b"\0").decode(errors="replace")
