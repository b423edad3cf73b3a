"""Contexts: files and their modes, the order of choice, and mutual TLS against a real server."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli import contexts
from cli.connection import choose_target
from cli.failure import CommandFailed
from proto import control_pb2
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer

PEM = {"certificate": b"cert", "key": b"key", "ca": b"ca"}


def issue(
    name: str, issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key with a certificate for `name`: a CA without `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())


def pem(made: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]) -> tuple[bytes, bytes]:
    private = made[0].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made[1].public_bytes(serialization.Encoding.PEM)


def test_files_are_private_and_a_second_cluster_gets_another_name(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    assert contexts.add(contexts.read(folder), "prod", ["a:1"], PEM, "c1") == "prod"
    assert contexts.add(contexts.read(folder), "prod", ["b:1"], PEM, "c2") == "prod-2"
    assert contexts.add(contexts.read(folder), "prod", ["c:1"], PEM, "c1") == "prod"
    known = contexts.read(folder)
    assert (known.current, known.known["prod"].addresses) == ("prod", ["c:1"])
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    contexts.add(contexts.read(tmp_path), "prod", ["a:1"], PEM)
    (tmp_path / "prod" / "key.pem").chmod(0o640)
    known = contexts.read(tmp_path)
    with pytest.raises(CommandFailed, match="chmod 600"):
        contexts.read_pem(known, known.known["prod"])


def test_flags_then_environment_then_current_context_then_the_hosts_socket(tmp_path: Path) -> None:
    base = {"FAIRWAY_CONFIG": str(tmp_path)}
    assert choose_target(None, None, base).socket == "/run/fairway/fairwayd.sock"
    contexts.add(contexts.read(tmp_path), "one", ["one:1"], PEM)
    contexts.add(contexts.read(tmp_path), "two", ["two:1"], PEM)
    assert choose_target(None, None, base).addresses == ["one:1"]
    assert choose_target(None, None, {**base, "FAIRWAY_CONTEXT": "two"}).addresses == ["two:1"]
    both = {**base, "FAIRWAY_CONTEXT": "two", "FAIRWAY_SOCKET": "/s"}
    assert choose_target(None, None, both).socket == "/s"
    assert choose_target("one", None, both).addresses == ["one:1"]
    assert choose_target("one", "/t", both).socket == "/t"
    with pytest.raises(CommandFailed, match="no such context"):
        choose_target("three", None, base)


def test_context_commands(fairway: Callable[..., Ended], tmp_path: Path) -> None:
    contexts.add(contexts.read(tmp_path / "config"), "prod", ["a:1"], PEM, "c")
    exported = fairway("context", "export", "prod").out
    assert json.loads(exported)["pem"]["key"] == "key"
    (tmp_path / "prod.json").write_text(exported)
    assert fairway("context", "import", str(tmp_path / "prod.json"), "--name", "copy").code == 0
    assert fairway("context", "use", "copy").code == 0
    assert [line.split()[:2] for line in fairway("context", "ls").out.splitlines()[1:]] == [
        ["*", "copy"],
        ["prod", "a:1"],
    ]
    assert fairway("context", "rm", "copy").code == 0
    assert fairway("context", "ls", "-q").out == "prod\n"
    assert fairway("context", "use", "--none").code == 0
    assert fairway("context", "use", "gone").code == 1


def test_a_broken_file_is_said(fairway: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "contexts.json").write_text("{")
    ended = fairway("ls")
    assert (ended.code, "correct the file" in ended.err) == (1, True)


def test_mutual_tls_and_the_next_address(fairway: Callable[..., Ended], tmp_path: Path) -> None:
    authority, foreign = issue("ca"), issue("other ca")
    tls = grpc.ssl_server_credentials([pem(issue("api.fairway", authority))], pem(authority)[1], True)
    server = ControlServer(tmp_path / "tls.sock", tls)
    server.on("ListApps", control_pb2.ListAppsReply())
    try:
        with socket.socket() as unused:  # bound and not listening: refuses
            unused.bind(("127.0.0.1", 0))
            addresses = [f"127.0.0.1:{unused.getsockname()[1]}", f"127.0.0.1:{server.port}"]
            for name, trusted in (("good", authority), ("bad", foreign)):
                key, certificate = pem(issue("admin", trusted))
                files = {"key": key, "certificate": certificate, "ca": pem(trusted)[1]}
                contexts.add(contexts.read(tmp_path / "config"), name, addresses, files)
            assert fairway("--context", "good", "ls").code == 0
            ended = fairway("--context", "bad", "ls")
            assert ended.code == 3
            assert "another cluster" in ended.err
    finally:
        server.stop()
