"""Receivers of logs for tests, each by the words of its protocol's specification, on a port or socket of its own."""

from __future__ import annotations

import datetime
import http.server
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proto import otlp_logs_pb2 as otlp

WAIT_S_MAX = 60.0


def unpacked(data: bytes, place: int = 0) -> tuple[Any, int]:
    """One value of MessagePack (its specification's table of formats), and where it ends. IndexError: not whole."""
    kind = data[place]
    place += 1

    def many(count: int, place: int) -> tuple[list[Any], int]:
        found = []
        for _ in range(count):
            value, place = unpacked(data, place)
            found.append(value)
        return found, place

    def text(size: int, place: int) -> tuple[str, int]:
        if place + size > len(data):
            raise IndexError
        return data[place : place + size].decode(), place + size

    if kind >> 4 == 0x8:
        flat, place = many(2 * (kind & 15), place)
        return dict(zip(flat[::2], flat[1::2], strict=True)), place
    if kind >> 4 == 0x9:
        return many(kind & 15, place)
    if kind >> 5 == 0b101:
        return text(kind & 31, place)
    if kind in (0xD9, 0xDA, 0xDB):
        width = 1 << (kind - 0xD9)
        return text(int.from_bytes(data[place : place + width], "big"), place + width)
    if kind == 0xDD:
        return many(struct.unpack_from(">I", data + b"\0\0\0\0", place)[0], place + 4)
    if kind == 0xD7 and data[place] == 0:
        seconds, nanoseconds = struct.unpack_from(">II", data + bytes(8), place + 1)
        return seconds * 1_000_000_000 + nanoseconds, place + 9
    raise AssertionError(f"a value of kind {kind:#x}")


class Received:
    """What came, of all connections. `refusing`: connections are closed without an answer."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.records: list[dict[str, Any]] = []
        self.refusing = 0  # how many more
        self.lock = threading.Lock()


def _read_counted(connection: socket.socket, received: Received) -> None:
    """Octet counting, RFC 6587 section 3.4.1."""
    rest = b""
    while data := connection.recv(65_536):
        rest += data
        while b" " in rest:
            size, _, message = rest.partition(b" ")
            if len(message) < int(size):
                break
            with received.lock:
                received.lines.append(message[: int(size)])
            rest = message[int(size) :]


def _read_forward(connection: socket.socket, received: Received) -> None:
    rest = b""
    while data := connection.recv(65_536):
        rest += data
        try:
            (tag, entries, option), end = unpacked(rest)
        except IndexError:
            continue
        rest = rest[end:]
        with received.lock:
            refusing, received.refusing = received.refusing > 0, max(0, received.refusing - 1)
            if not refusing:
                received.records += [{**record, "tag": tag, "time": moment} for moment, record in entries]
        if refusing:
            return
        chunk = option["chunk"].encode()
        connection.sendall(b"\x81\xa3ack" + bytes([0xA0 | len(chunk)]) + chunk)


@contextmanager
def stream_server(
    kind: str, context: ssl.SSLContext | None = None, listener: socket.socket | None = None
) -> Iterator[tuple[int, Received]]:
    """`kind`: "syslog" or "fluentd", over TCP on loopback; `listener`: a socket that is bound. Its port, and what
    comes."""
    received, stop = Received(), threading.Event()
    listener = listener or socket.create_server(("127.0.0.1", 0))
    listener.listen()
    listener.settimeout(0.05)
    read = _read_counted if kind == "syslog" else _read_forward
    threads: list[threading.Thread] = []
    open_now: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        try:
            connection.settimeout(WAIT_S_MAX)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            open_now.append(connection)
            read(connection, received)
        except OSError:
            pass
        finally:
            connection.close()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=talk, args=(connection,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        stop.set()
        acceptor.join()
        listener.close()
        for connection in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in threads:
            thread.join()


@contextmanager
def datagram_server(address: str | tuple[str, int]) -> Iterator[tuple[Any, Received]]:
    """A socket in the file system, or UDP; a message that comes as a file is read, if it is sealed as journald asks."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    received, stop = Received(), threading.Event()
    channel = socket.socket(family, socket.SOCK_DGRAM)
    channel.bind(address)
    channel.settimeout(0.05)

    def read() -> None:
        while not stop.is_set():
            try:
                data, rights, _, _ = channel.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            except TimeoutError:
                continue
            for _, _, content in rights:
                file = int.from_bytes(content[:4], "little")
                data = os.pread(file, 1 << 26, 0)
                os.close(file)
            with received.lock:
                received.lines.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield channel.getsockname(), received
    finally:
        stop.set()
        thread.join()
        channel.close()


@contextmanager
def otlp_server() -> Iterator[tuple[int, Received]]:
    """A collector's HTTP port; while it refuses, it says 503."""
    received = Received()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with received.lock:
                refusing, received.refusing = received.refusing > 0, max(0, received.refusing - 1)
            right = (self.path, self.headers["Content-Type"]) == ("/v1/logs", "application/x-protobuf")
            self.send_response(503 if refusing else 200 if right else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if refusing or not right:
                return
            request = otlp.ExportLogsServiceRequest.FromString(body)
            for logs in request.resource_logs:
                about = {each.key: each.value.string_value for each in logs.resource.attributes}
                about["token"] = self.headers["authorization"]
                for record in (record for scope in logs.scope_logs for record in scope.log_records):
                    said = {"body": record.body.string_value, "severity": record.severity_text}
                    with received.lock:
                        received.records.append(about | said | {"time": record.time_unix_nano})

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Of "localhost", by itself: a server's context, and the file to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path, secret = folder / "ca.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return context, path
