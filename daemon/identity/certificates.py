"""The cluster's certificates: its CA, nodes and operators, and who a peer's certificate says it is.

X.509 v3 (RFC 5280), EC P-256. Identity stands in a URI of the subject alternative name:
`fairway://CLUSTER/node/ID`, `fairway://CLUSTER/operator/NAME`; a node's id is also bound to its key.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daemon.identity.keys import (
    PrivateKey,
    PublicKey,
    load_private_key,
    new_private_key,
    node_id_of,
    private_key_pem,
    require_p256,
)

CA_LIFETIME_DAYS = 3650
NODE_LIFETIME_DAYS = 90
OPERATOR_LIFETIME_DAYS = 365
CLOCK_SKEW_MS_MAX = 3_600_000  # certificates are valid from this long before they are signed
API_SERVER_NAME = "api.fairway"  # in every node's certificate: what clients of the API expect
CERTIFICATE_BYTES_MAX = 16 << 10

_DAY_MS = 86_400_000
_OPERATOR_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_URI = re.compile(r"fairway://([0-9a-z]{26})/(node|operator)/([a-z0-9._-]{1,63})")


class PeerKind(enum.Enum):
    NODE = "node"
    OPERATOR = "operator"


@dataclass(frozen=True)
class PeerIdentity:
    """Who holds a certificate of the cluster; `name` is a node's id or an operator's name."""

    kind: PeerKind
    name: str

    @property
    def actor(self) -> str:
        """As it stands in a Transaction's `actor`: "node/ID", "operator/anna"."""
        return f"{self.kind.value}/{self.name}"


@dataclass(frozen=True)
class CertificateAuthority:
    """The cluster's CA with its private key; only the leader has one in memory, while it signs."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def create(cls, cluster_id: str, now_unix_ms: int) -> CertificateAuthority:
        """A new CA, valid for ten years; it may sign leaves only (path length 0)."""
        key = new_private_key()
        usage = _key_usage(signs_certificates=True)
        certificate = (
            _builder(f"Fairway CA {cluster_id}", key.public_key(), now_unix_ms, CA_LIFETIME_DAYS)
            .issuer_name(_name(f"Fairway CA {cluster_id}"))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> CertificateAuthority:
        """Raises ValueError: not PEM, or the key is not the certificate's."""
        certificate, key = load_certificate(certificate_pem), load_private_key(key_pem)
        if certificate.public_key() != key.public_key():
            raise ValueError("the CA's private key does not belong to its certificate")
        return cls(certificate, key)

    def sign_node(self, key: PublicKey, cluster_id: str, now_unix_ms: int) -> bytes:
        """PEM of a certificate for the node that holds `key`, as server and as client; 90 days."""
        node_id = node_id_of(key)
        names = (
            x509.DNSName(node_server_name(node_id)),
            x509.DNSName(API_SERVER_NAME),
            x509.UniformResourceIdentifier(f"fairway://{cluster_id}/node/{node_id}"),
        )
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._sign_leaf(node_id, key, names, usages, now_unix_ms, NODE_LIFETIME_DAYS)

    def sign_operator(self, key: PublicKey, cluster_id: str, name: str, now_unix_ms: int) -> bytes:
        """PEM of a certificate for a person or program that uses the API; client only, one year.

        Raises ValueError where `name` is not 1 to 63 of a-z, 0-9, '.', '_', '-'.
        """
        if _OPERATOR_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot be an operator's name: use a-z, 0-9, '.', '_' and '-', at most 63")
        names = (x509.UniformResourceIdentifier(f"fairway://{cluster_id}/operator/{name}"),)
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        return self._sign_leaf(name, key, names, usages, now_unix_ms, OPERATOR_LIFETIME_DAYS)

    def certificate_pem(self) -> bytes:
        return certificate_pem(self.certificate)

    def key_pem(self) -> bytes:
        return private_key_pem(self.key)

    def _sign_leaf(
        self,
        common_name: str,
        key: PublicKey,
        names: tuple[x509.GeneralName, ...],
        usages: tuple[x509.ObjectIdentifier, ...],
        now_unix_ms: int,
        lifetime_days: int,
    ) -> bytes:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = (
            _builder(common_name, key, now_unix_ms, lifetime_days)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate_pem(certificate)


def parse_peer(certificate_der: bytes, cluster_id: str) -> PeerIdentity:
    """Who a certificate of cluster `cluster_id` belongs to.

    It reads names only: that our CA signed it must have been checked by TLS or by `check_issued_by`.
    Raises ValueError: no certificate, another cluster's, not exactly one identity, or a node's id that
    does not belong to its key.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, TypeError, x509.ExtensionNotFound, UnsupportedAlgorithm) as error:
        raise ValueError(f"the peer's certificate has no identity of Fairway in it: {error}") from error
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None:
        raise ValueError("the peer's certificate names no node and no operator of Fairway")
    if match[1] != cluster_id:
        raise ValueError(f"the peer's certificate belongs to another cluster ({match[1]}, this one is {cluster_id})")
    identity = PeerIdentity(PeerKind(match[2]), match[3])
    if identity.kind is PeerKind.NODE and node_id_of(require_p256(certificate.public_key())) != identity.name:
        raise ValueError(f"the peer's certificate names node {identity.name} but has another node's key")
    return identity


def cluster_id_of(certificate_der: bytes) -> str:
    """The cluster that a leaf says it belongs to; nothing is checked. Raises ValueError."""
    names = (
        x509.load_der_x509_certificate(certificate_der)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.UniformResourceIdentifier)
    )
    match = _URI.fullmatch(names[0]) if len(names) == 1 else None
    if match is None:
        raise ValueError("the certificate names no cluster")
    return match[1]


def check_issued_by(leaf: x509.Certificate, ca: x509.Certificate, now_unix_ms: int) -> None:
    """Raises ValueError unless `ca` itself signed `leaf` and both are valid at `now_unix_ms`."""
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise ValueError("the certificate was not signed by this cluster's CA") from error
    for certificate, what in ((leaf, "the certificate"), (ca, "the CA's certificate")):
        begins, ends = validity_unix_ms(certificate)
        if now_unix_ms < begins:
            raise ValueError(f"{what} is not valid before {_date(begins)}: compare the clocks of the hosts")
        if now_unix_ms >= ends:
            raise ValueError(f"{what} has expired at {_date(ends)}")


def validity_unix_ms(certificate: x509.Certificate) -> tuple[int, int]:
    """First and last moment of its validity."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return round(begins.timestamp() * 1000), round(ends.timestamp() * 1000)


def load_certificate(pem: bytes) -> x509.Certificate:
    """Raises ValueError: too large, or no certificate in PEM."""
    if len(pem) > CERTIFICATE_BYTES_MAX:
        raise ValueError(f"the certificate is larger than {CERTIFICATE_BYTES_MAX} bytes")
    return x509.load_pem_x509_certificate(pem)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def ca_fingerprint(ca: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's DER: what a join token carries."""
    return hashlib.sha256(certificate_der(ca)).digest()


def node_server_name(node_id: str) -> str:
    """The DNS name in a node's certificate by which a client insists on just this node."""
    return f"{node_id}.node.fairway"


def _builder(common_name: str, key: PublicKey, now_unix_ms: int, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now_unix_ms - CLOCK_SKEW_MS_MAX))
        .not_valid_after(_moment(now_unix_ms + days * _DAY_MS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(unix_ms: int) -> datetime.datetime:
    # X.509 times have whole seconds.
    return datetime.datetime.fromtimestamp(unix_ms // 1000, datetime.UTC)


def _date(unix_ms: int) -> str:
    return _moment(unix_ms).strftime("%Y-%m-%d %H:%M UTC")
