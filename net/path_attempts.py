"""Tries a path for real: connects and asks for names, from a task's own network namespace; each in bounded time."""

from __future__ import annotations

import errno
import os
import socket as plain_socket
import struct
from collections.abc import Callable
from pathlib import Path

import trio
import trio.lowlevel

from net import dns_message as message
from net.addresses import GATEWAY_ADDRESS
from net.namespaces import within_namespace
from proto.doctor_pb2 import ConnectResult, NameAnswer

CONNECT_SECONDS_MAX = 1.5
NAME_SECONDS_MAX = 1.5
NAME_ATTEMPTS = 2
UDP_SECONDS = 0.3  # within which a refusal (ICMP) would have come back
_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EACCES: "not allowed",
    errno.ECONNRESET: "reset",
    errno.ENETDOWN: "the interface is down",
}


async def connect(namespace: Path | None, protocol: str, address: str, port: int) -> ConnectResult:
    """From a namespace, or from the host itself; a TCP connection is closed again at once."""
    result = ConnectResult(address=address, port=port)
    kind = plain_socket.SOCK_DGRAM if protocol == "udp" else plain_socket.SOCK_STREAM
    began = trio.current_time()
    try:
        with await _open(namespace, address, kind) as socket:
            with trio.move_on_after(CONNECT_SECONDS_MAX) as waiting:
                await socket.connect((address, port))
                if protocol == "udp":
                    await _wait_for_refusal(socket)
            result.connected = not waiting.cancelled_caught
            result.error = "no answer" if waiting.cancelled_caught else ""
    except OSError as error:
        result.error = _WORDS.get(error.errno or 0) or os.strerror(error.errno or errno.EIO).lower()
    result.seconds = trio.current_time() - began
    return result


async def resolve(namespace: Path | None, name: str) -> NameAnswer:
    """Asks this host's name server for IPv4 addresses, as the task does; `code` is empty where nothing answered."""
    found = NameAnswer(server=GATEWAY_ADDRESS)
    for _ in range(NAME_ATTEMPTS):
        identifier = int.from_bytes(os.urandom(2), "big")
        asked = message.write_query(identifier, name, message.TYPE_A)
        try:
            with await _open(namespace, GATEWAY_ADDRESS, plain_socket.SOCK_DGRAM) as socket:
                with trio.move_on_after(NAME_SECONDS_MAX / NAME_ATTEMPTS):
                    await socket.connect((GATEWAY_ADDRESS, 53))
                    await socket.send(asked)
                    data = await socket.recv(message.MESSAGE_BYTES_MAX)
                    found.code = _CODES.get(data[3] & 15, str(data[3] & 15))
                    found.addresses.extend(_addresses(data))
                    return found
        except (OSError, IndexError, message.MalformedMessage):
            continue
    return found


async def _wait_for_refusal(socket: trio.socket.SocketType) -> None:
    await socket.send(b"")
    with trio.move_on_after(UDP_SECONDS):
        await socket.recv(1)


async def _open(namespace: Path | None, address: str, kind: int) -> trio.socket.SocketType:
    family = plain_socket.AF_INET6 if ":" in address else plain_socket.AF_INET

    def make() -> plain_socket.socket:
        return plain_socket.socket(family, kind | plain_socket.SOCK_CLOEXEC)

    if namespace is None:
        return trio.socket.from_stdlib_socket(make())
    within: Callable[[], plain_socket.socket] = make
    return trio.socket.from_stdlib_socket(await trio.to_thread.run_sync(within_namespace, namespace, within))


def _addresses(data: bytes) -> list[str]:
    """Of the answer section; MalformedMessage where it cannot be read."""
    _, _, questions, answers, _, _ = struct.unpack_from(">HHHHHH", data)
    offset, found = 12, []
    for _ in range(questions):
        offset = message.read_name(data, offset)[1] + 4
    for _ in range(answers):
        offset, kind, _, _ = message.skip_record(data, offset)
        if kind == message.TYPE_A:
            found.append(plain_socket.inet_ntoa(data[offset - 4 : offset]))
    return found


async def answers(server: str, seconds_max: float) -> bool:
    """Whether a name server answers anything at all to a question for the root's name servers."""
    identifier = int.from_bytes(os.urandom(2), "big")
    for _ in range(NAME_ATTEMPTS):
        with trio.move_on_after(seconds_max / NAME_ATTEMPTS):
            try:
                with await _open(None, server, plain_socket.SOCK_DGRAM) as socket:
                    await socket.connect((server, 53))
                    await socket.send(message.write_query(identifier, ".", 2))
                    data = await socket.recv(message.MESSAGE_BYTES_MAX)
                    if data[:2] == identifier.to_bytes(2, "big"):
                        return True
            except OSError:
                await trio.lowlevel.checkpoint()
    return False
