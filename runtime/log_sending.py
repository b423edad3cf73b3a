"""Brings lines of a log to their receiver: sockets, TLS and HTTP around log_encoders.py.

A sender is one task's. `send` returns when the receiver has the lines, as far as its protocol tells: fluentd
acknowledges, OTLP and journald answer, syslog says nothing. It raises OSError where they are to be sent again.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import secrets
import socket
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from proto import log_receivers
from proto.host_pb2 import LogLine
from runtime import log_encoders
from runtime.log_receiver import Receiver

HTTP_S_MAX = 10.0
HTTP_THREADS_MAX = 4
ANSWER_BYTES_MAX = 64 * 1024
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_RETRIED = (408, 429, 502, 503, 504)  # of the OTLP specification, and 408


class Sender(Protocol):
    async def send(self, lines: Sequence[LogLine]) -> None: ...
    async def close(self) -> None: ...


def sender_to(receiver: Receiver, http_limiter: trio.CapacityLimiter) -> Sender:
    if receiver.driver == "otlp":
        return _Otlp(receiver, http_limiter)
    if receiver.driver == "fluentd":
        return _Forward(receiver)
    if receiver.driver == "syslog" and receiver.address.scheme in ("tcp", "tcp+tls"):
        return _SyslogStream(receiver)
    return _Datagrams(receiver)


def _syslog(receiver: Receiver, line: LogLine) -> bytes:
    local = receiver.address.scheme == "unix" and "syslog-format" not in receiver.options
    encode = log_encoders.syslog_local if local else log_encoders.syslog
    return encode(line, receiver.tag, receiver.words, receiver.options.get("syslog-facility", ""))


class _Datagrams:
    """journald, and syslog over UDP or a socket in the file system."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._socket: trio.socket.SocketType | None = None

    async def send(self, lines: Sequence[LogLine]) -> None:
        if self._socket is None:
            self._socket = await self._connected()
        journald = self._receiver.driver == "journald"
        for line in lines:
            if journald:
                data = log_encoders.journald(line, self._receiver.tag, self._receiver.words)
            else:
                data = _syslog(self._receiver, line)
            try:
                await self._socket.send(data)
            except OSError as error:
                if not journald or error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                await self._send_file(data)

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _connected(self) -> trio.socket.SocketType:
        address = self._receiver.address
        family: int = socket.AF_UNIX
        target: object = address.path
        if address.scheme == "udp":
            found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            family, target = found[0][0], found[0][4]
        channel = trio.socket.socket(family, socket.SOCK_DGRAM)
        try:
            await channel.connect(target)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _send_file(self, data: bytes) -> None:
        """What a datagram does not hold goes to journald as a sealed file of its own."""
        assert self._socket is not None
        file = os.memfd_create("fairway-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = file.to_bytes(4, "little")
            await self._socket.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(file)


class _Stream:
    """A connection that is made when it is needed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._stream: trio.abc.Stream | None = None

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _write(self, data: bytes) -> trio.abc.Stream:
        if self._stream is None:
            self._stream = await self._connected()
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError(f"the connection broke: {error.__cause__ or error}") from error
        return self._stream

    async def _connected(self) -> trio.abc.Stream:
        address = self._receiver.address
        if address.scheme == "unix":
            return await trio.open_unix_socket(address.path)
        stream = await trio.open_tcp_stream(address.host, address.port)
        if address.scheme != "tcp+tls":
            return stream
        secured = trio.SSLStream(stream, _tls(self._receiver.options), server_hostname=address.host)
        try:
            await secured.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.aclose_forcefully(stream)
            raise OSError(f"no TLS with {address}: {error.__cause__ or error}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured


class _SyslogStream(_Stream):
    async def send(self, lines: Sequence[LogLine]) -> None:
        await self._look_for_end()
        await self._write(b"".join(log_encoders.octet_counted(_syslog(self._receiver, line)) for line in lines))

    async def _look_for_end(self) -> None:
        """A receiver says nothing but that it is gone: what is written after that would be lost."""
        if self._stream is None:
            return
        ended = False
        with trio.move_on_after(0.001):  # there is nothing, as a rule
            try:
                ended = not await self._stream.receive_some(1)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                ended = True
        if ended:
            await self.close()


class _Forward(_Stream):
    async def send(self, lines: Sequence[LogLine]) -> None:
        chunk = secrets.token_urlsafe(12)
        stream = await self._write(log_encoders.forward(lines, self._receiver.tag, self._receiver.words, chunk))
        answer = b""
        while len(answer) < log_encoders.acknowledgement_bytes(chunk):
            try:
                data = await stream.receive_some(ANSWER_BYTES_MAX)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise OSError(f"the connection broke: {error.__cause__ or error}") from error
            if not data:
                raise OSError("the receiver closed the connection without an acknowledgement")
            answer += data
        if not log_encoders.acknowledges(answer, chunk):
            raise OSError(f"the receiver acknowledged something else: {answer[:80]!r}")


class _Otlp:
    def __init__(self, receiver: Receiver, limiter: trio.CapacityLimiter) -> None:
        self._receiver = receiver
        self._limiter = limiter

    async def send(self, lines: Sequence[LogLine]) -> None:
        body = log_encoders.otlp_request(lines, self._receiver.words)
        await trio.to_thread.run_sync(self._post, body, limiter=self._limiter, abandon_on_cancel=True)

    async def close(self) -> None:
        """Each request has a connection of its own."""

    def _post(self, body: bytes) -> None:
        address, options = self._receiver.address, self._receiver.options
        headers = {**log_receivers.headers_of(options), "Content-Type": "application/x-protobuf"}
        connection: http.client.HTTPConnection
        if address.scheme == "https":
            context = ssl.create_default_context(cafile=options.get("otlp-ca-cert") or None)
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=HTTP_S_MAX, context=context)
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=HTTP_S_MAX)
        try:
            connection.request("POST", urllib.parse.quote(address.path), body, headers)
            response = connection.getresponse()
            said = response.read(ANSWER_BYTES_MAX)
        except http.client.HTTPException as error:
            raise OSError(f"{address} does not speak HTTP: {error!r}") from error
        finally:
            connection.close()
        if response.status >= 300:
            words = f"{address} answered {response.status} {response.reason}: {said[:200].decode(errors='replace')}"
            raise OSError(words) if response.status in _RETRIED else Rejected(words)


class Rejected(Exception):
    """The receiver will never take these lines: they are not sent again."""


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    """Raises OSError where a file is missing or wrong (ssl.SSLError is one)."""
    context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
    if certificate := options.get("syslog-tls-cert"):
        context.load_cert_chain(certificate, options.get("syslog-tls-key") or None)
    if options.get("syslog-tls-skip-verify") == "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
