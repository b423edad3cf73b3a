"""Private keys of hosts, operators and the CA (EC P-256), requests for certificates, and node ids."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.identity import base32
from daemon.ids import LENGTH

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

REQUEST_BYTES_MAX = 16 << 10


def new_private_key() -> PrivateKey:
    """A fresh key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_private_key(pem: bytes) -> PrivateKey:
    """Raises ValueError where `pem` is no unencrypted key on P-256."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no private key that can be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the private key is not on the curve P-256")
    return key


def require_p256(key: object) -> PublicKey:
    """`key` where it is a public key on P-256. Raises ValueError otherwise."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the public key is not on the curve P-256")
    return key


def public_key_sha256(key: PublicKey) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def node_id_of(key: PublicKey) -> str:
    """The id of the node that holds `key`: the first 26 characters of its hash in base 32."""
    return base32.encode(public_key_sha256(key))[:LENGTH]


def certificate_request_pem(key: PrivateKey) -> bytes:
    """A request (RFC 2986) signed by `key`. Nothing but the public key is ever read out of it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id_of(key.public_key()))])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def requested_key(request_pem: bytes) -> PublicKey:
    """The public key of a request whose sender has proved to hold the private one.

    Raises ValueError: no request, a broken signature, or a key that is not on P-256.
    """
    if len(request_pem) > REQUEST_BYTES_MAX:
        raise ValueError(f"the certificate request is larger than {REQUEST_BYTES_MAX} bytes")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = require_p256(request.public_key())
        valid = request.is_signature_valid
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(f"the certificate request cannot be used: {error}") from error
    if not valid:
        raise ValueError("the certificate request is not signed by the key that it names")
    return key
