"""Probes against real servers on this machine: HTTP, TCP, gRPC; what is wrong is said in words."""

from __future__ import annotations

import contextlib
import datetime
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from proto.objects_pb2 import GrpcProbe, HttpHeader, HttpProbe, Probe, TcpProbe
from runtime import http_get
from runtime.errors import NotFound, TimedOut
from runtime.probe_plan import Kind, ProbeState
from runtime.probes import Way, probe_once, run_probe

ADDRESS = "127.0.0.1"
TIMEOUT_MS = 30_000


async def connect(port: int) -> trio.abc.Stream:
    return await trio.open_tcp_stream(ADDRESS, port)


async def no_command(command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
    raise AssertionError("no command is asked for")


def way(execute: object = no_command) -> Way:
    return Way(ADDRESS, connect, execute, trio.CapacityLimiter(2))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def answering(answer: bytes, keep_open: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers so whatever it is sent; its port and what it was sent."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(65_536)))
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(answer)
            if keep_open:
                await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()


async def asked_of(answer: bytes, said: dict[str, int], keep_open: bool = False, timeout_ms: int = TIMEOUT_MS) -> str:
    async with answering(answer, keep_open) as (port, _):
        probe = Probe(http=HttpProbe(port=port, **said))  # type: ignore[arg-type]
        return (await probe_once(probe, way(), timeout_ms)).partition(": ")[2]


@pytest.mark.parametrize(
    ("answer", "said", "wrong"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nnot all of it", {}, ""),
        (b"HTTP/1.0 399 Hm\r\n\r\n", {}, ""),
        (b"HTTP/1.1 400 Bad\r\n\r\n", {}, "HTTP 400"),
        (b"HTTP/1.1 204 None\r\n\r\n", {"status_min": 200}, "HTTP 204"),
        (b"HTTP/1.1 503 Later\r\n\r\n", {"status_min": 500, "status_max": 599}, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", {}, ""),
        (b"SSH-2.0-OpenSSH\r\n\r\n", {}, "the answer is not HTTP"),
        (b"", {}, "the connection was closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (http_get.HEAD_BYTES_MAX + 1), {}, "the answer is not HTTP"),
    ],
)
def test_the_status_of_an_http_answer_decides(answer: bytes, said: dict[str, int], wrong: str) -> None:
    found = trio.run(lambda: asked_of(answer, said))
    assert found.startswith(wrong) and bool(found) == bool(wrong)


def test_the_request_says_what_the_file_says() -> None:
    async def main() -> bytes:
        async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (port, asked):
            headers = [HttpHeader(name="Host", value="shop.example"), HttpHeader(name="X-Probe", value="1")]
            probe = Probe(http=HttpProbe(port=port, path="/ok?deep=1", headers=headers))
            assert not await probe_once(probe, way(), TIMEOUT_MS)
            return asked[0]

    request = trio.run(main)
    assert request.startswith(b"GET /ok?deep=1 HTTP/1.1\r\n")
    assert request.lower().count(b"host:") == 1 and b"shop.example" in request and b"X-Probe: 1" in request


def test_silence_and_a_closed_port_are_failures() -> None:
    assert "no answer within 50 ms" in trio.run(lambda: asked_of(b"", {}, keep_open=True, timeout_ms=50))

    async def opened() -> str:
        async with answering(b"") as (port, _):
            return await probe_once(Probe(tcp=TcpProbe(port=port)), way(), TIMEOUT_MS)

    assert not trio.run(opened)
    with socket.socket() as taken:  # so that nobody else listens there
        taken.bind((ADDRESS, 0))
        probe = Probe(tcp=TcpProbe(port=taken.getsockname()[1]))
        assert trio.run(probe_once, probe, way(), TIMEOUT_MS)


@contextlib.contextmanager
def grpc_server(healthy: bool = True) -> Iterator[tuple[int, health.HealthServicer]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    if healthy:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{ADDRESS}:0")
    server.start()
    try:
        yield port, servicer
    finally:
        server.stop(None).wait()


def ask_grpc(port: int, service: str = "") -> str:
    return trio.run(lambda: probe_once(Probe(grpc=GrpcProbe(port=port, service=service)), way(), TIMEOUT_MS))


def test_a_grpc_server_says_how_it_is() -> None:
    with grpc_server() as (port, servicer):
        assert ask_grpc(port) == ""
        servicer.set("shop.Cart", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert "NOT_SERVING" in ask_grpc(port, "shop.Cart")
        servicer.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
        assert ask_grpc(port, "shop.Cart") == ""
        assert "NOT_FOUND" in ask_grpc(port, "shop.Nothing")
    with grpc_server(healthy=False) as (port, _):
        assert "UNIMPLEMENTED" in ask_grpc(port)


def own_certificate() -> tuple[bytes, bytes]:
    """(key, certificate) in PEM, signed by nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    now = datetime.datetime.now(datetime.UTC)
    later = now + datetime.timedelta(hours=1)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, later)
    certificate = built.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


def test_tls_is_spoken_and_certificates_are_not_checked(tmp_path: Path) -> None:
    key, certificate = own_certificate()
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "certificate").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")

    async def main() -> tuple[str, str]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(functools.partial(trio.serve_ssl_over_tcp, serve, 0, context))
            port = listeners[0].transport_listener.socket.getsockname()[1]
            secured = await probe_once(Probe(http=HttpProbe(port=port, tls=True)), way(), TIMEOUT_MS)
            plain = await probe_once(Probe(http=HttpProbe(port=port)), way(), TIMEOUT_MS)
            nursery.cancel_scope.cancel()
            return secured, plain

    secured, plain = trio.run(main)
    assert not secured and plain

    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    grpc_port = server.add_secure_port(f"{ADDRESS}:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    try:
        probe = Probe(grpc=GrpcProbe(port=grpc_port, tls=True))
        assert trio.run(lambda: probe_once(probe, way(), TIMEOUT_MS)) == ""
    finally:
        server.stop(None).wait()


def test_what_does_not_speak_grpc_fails() -> None:
    async def main() -> str:
        async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
            return await probe_once(Probe(grpc=GrpcProbe(port=port)), way(), TIMEOUT_MS)

    assert "not gRPC" in trio.run(main)


def test_a_live_probe_ends_with_its_failure_and_with_the_container() -> None:
    async def run(results: list[object]) -> list[tuple[bool | None, str]]:
        async def execute(command: Sequence[str], timeout_ms: int) -> tuple[int, bytes]:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return int(str(result)), b"words"

        noted: list[tuple[bool | None, str]] = []

        def note(state: ProbeState, wrong: str) -> None:
            noted.append((state.verdict, wrong))

        await run_probe(Kind.LIVE, Probe(exec=["check"], failures=2), way(execute), note)
        return noted

    def play(results: list[object]) -> list[tuple[bool | None, str]]:
        return trio.run(run, results, clock=trio.testing.MockClock(autojump_threshold=0))

    assert play([0, 1, TimedOut("late"), 0]) == [
        (True, ""),
        (True, "check: exit code 1: words"),
        (False, "check: no answer within 3000 ms"),
    ]
    assert play([0, NotFound("gone")]) == [(True, "")]
