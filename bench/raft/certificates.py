"""Certificates of a cluster that lives as long as a benchmark: node ids are common names."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_HOURS = 24


def write_certificates(folder: Path, node_ids: list[str]) -> None:
    """Makes an authority and, for every node, NODE.pem with its key and certificate."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _signed("bench", authority_key, "bench", authority_key, is_authority=True)
    (folder / "authority.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for node_id in node_ids:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(node_id, key, "bench", authority_key, is_authority=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{node_id}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


def _signed(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=VALID_HOURS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class BenchTls:
    """A raft.link.TlsSource over the files of `write_certificates`."""

    def __init__(self, folder: Path, node_id: str) -> None:
        self._folder, self._node_id = folder, node_id

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._folder / f"{self._node_id}.pem")
        context.load_verify_locations(self._folder / "authority.pem")
        return context

    def server_context(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def peer_node_id(self, certificate_der: bytes) -> str:
        names = x509.load_der_x509_certificate(certificate_der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1:
            raise ValueError("the certificate names no node")
        return str(names[0].value)
