"""Debian's docker-registry filled by skopeo, a server that gives tokens for it, and a proxy that breaks downloads."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import http.server
import ipaddress
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from lab import debian_packages

USER, PASSWORD = "ana", "s3cret"
_HTPASSWD = f"{USER}:$2b$04$3L7ig2BMuCnmjqTWl.FST.bp4HK/e/oKhgvpthvIRASEFmq8UPseS\n"  # of PASSWORD
START_SECONDS_MAX = 60.0
ON_LOOPBACK = "127.0.0.1:0"  # at any port that is free
_LISTENING = re.compile(rb"listening on ([^,\" ]+)")
_SERVICE = "test-registry"


@dataclass
class Authority:
    """A CA, and one certificate of it for a server at an address."""

    folder: Path
    address: str
    key: ec.EllipticCurvePrivateKey = field(init=False)
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("Test CA", authority_key, None, authority_key, [])
        self.key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(self.address))]
        self.certificate = _certificate("server", self.key, authority.subject, authority_key, names)
        self.ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        self.certificate_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / "server.key"


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@dataclass
class Registry:
    """One that runs."""

    address: str  # host:port
    process: subprocess.Popen[bytes]
    log_file: Path

    def requests(self, part: str) -> int:
        """How many requests it has answered whose line in its log has this in it."""
        return sum(part in line for line in self.log_file.read_text(errors="replace").splitlines())


def _program() -> Path:
    """Out of its package and not installed, which would start one as a service of the machine."""
    package = debian_packages.unpacked("docker-registry", ["docker-registry"], with_libraries=False)
    return package / "usr/bin/docker-registry"


@contextlib.contextmanager
def registry(
    folder: Path,
    address: str,
    *,
    authority: Authority | None = None,
    basic: bool = False,
    token_realm: str = "",
    token_authority: Authority | None = None,
    within: Callable[[Sequence[str]], list[str]] = list,
) -> Iterator[Registry]:
    """Runs docker-registry at host:port (port 0: any that is free); `within` makes the command line that runs
    another in its network."""
    folder.mkdir(parents=True, exist_ok=True)
    http_part: dict[str, Any] = {"addr": address}
    if authority is not None:
        http_part["tls"] = {"certificate": str(authority.certificate_file), "key": str(authority.key_file)}
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http_part,
    }
    if basic:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token_authority is not None:
        config["auth"] = {
            "token": {
                "realm": token_realm,
                "service": _SERVICE,
                "issuer": "test-issuer",
                "rootcertbundle": str(token_authority.certificate_file),
            }
        }
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            within([str(_program()), "serve", str(folder / "config.json")]), stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while (said := _LISTENING.search(log_file.read_bytes())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"docker-registry did not start: {log_file.read_text()}")
            time.sleep(0.02)
        yield Registry(said[1].decode() if address.endswith(":0") else address, process, log_file)
    finally:
        process.terminate()
        process.wait(60)


def push(
    archive: Path, name: str, *options: str, secure: bool = False, within: Callable[[Sequence[str]], list[str]] = list
) -> None:
    """skopeo: an OCI archive into a registry; `name` as host:port/repository:tag."""
    command = ["skopeo", "--insecure-policy", "copy", "-q", f"--dest-tls-verify={str(secure).lower()}", *options]
    done = subprocess.run(
        within([*command, f"oci-archive:{archive}", f"docker://{name}"]), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def silent_address() -> Iterator[str]:
    """Where nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


# ---- tokens ----------------------------------------------------------------------------------------------


class TokenServer:
    """Gives tokens to USER (Docker's "token" specification), and counts them."""

    def __init__(self, authority: Authority, life_s: int = 600) -> None:
        self.given: list[str] = []  # scopes
        self._authority = authority
        self._life_s = life_s
        self._server = _serve(self._answer)
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {expected}":
            _say(handler, 401, {}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
            return
        asked = parse_qs(urlsplit(handler.path).query)
        scope = asked.get("scope", [""])[0]
        self.given.append(scope)
        answer = {"token": self._token(scope), "expires_in": self._life_s}
        _say(handler, 200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _token(self, scope: str) -> str:
        certificate = self._authority.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(certificate).decode()]}
        access = []
        if scope:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "test-issuer", "sub": USER, "aud": _SERVICE, "nbf": now - 5, "iat": now, "jti": "1"}
        claims |= {"exp": now + self._life_s, "access": access}
        body = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self._authority.key.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{body}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# ---- a way that fails ------------------------------------------------------------------------------------

# What becomes of the answer to the nth request of a blob, counted from 1: it is changed in place.
Fault = Callable[["Answer", int], None]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cut_at: int | None = None  # so many bytes are sent, then the connection ends


class FaultyWay:
    """A proxy before a registry on this machine that lets `fault` change the answers about blobs."""

    def __init__(self, registry_address: str, fault: Fault) -> None:
        self.ranges: list[str] = []  # Range headers of requests for blobs, "" where there was none
        self._registry_address = registry_address
        self._fault = fault
        self._lock = threading.Lock()
        self._server = _serve(self._answer)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        connection = http.client.HTTPConnection(self._registry_address, timeout=20)
        try:
            headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
            connection.request(handler.command, handler.path, headers=headers)
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()
        if "/blobs/" in handler.path:
            with self._lock:
                self.ranges.append(handler.headers.get("Range", ""))
                number = len(self.ranges)
            self._fault(answer, number)
        _say(handler, answer.status, answer.headers, answer.body, answer.cut_at)


def _serve(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def _say(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    body: bytes,
    cut_at: int | None = None,
) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            handler.send_header(name, value)
    handler.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    if handler.command != "HEAD":
        with contextlib.suppress(OSError):
            handler.wfile.write(body if cut_at is None else body[:cut_at])
