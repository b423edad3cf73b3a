"""Keys, certificates, sealing and base 32."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from daemon.identity import base32, keys, sealing
from daemon.identity.certificates import (
    CertificateAuthority,
    PeerIdentity,
    PeerKind,
    ca_fingerprint,
    certificate_der,
    check_issued_by,
    cluster_id_of,
    load_certificate,
    parse_peer,
    validity_unix_ms,
)
from daemon.ids import new_id

NOW = 1_900_000_000_000
DAY_MS = 86_400_000


@given(st.binary(max_size=64))
def test_base32_gives_back_what_it_got(data: bytes) -> None:
    text = base32.encode(data)
    assert base32.decode(text) == data
    assert base32.decode(text.upper().replace("0", "O").replace("1", "L")) == data


@pytest.mark.parametrize("text", ["u", "zzzzz!", "zz", "é"])
def test_base32_refuses_what_nothing_encodes_to(text: str) -> None:
    with pytest.raises(ValueError):
        base32.decode(text)


def test_sealed_bytes_open_only_with_key_and_context() -> None:
    key = sealing.new_key()
    sealed = sealing.seal(key, b"secret", "one")
    assert sealing.unseal(key, sealed, "one") == b"secret"
    assert b"secret" not in sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong_key, wrong_bytes, context in [
        (sealing.new_key(), sealed, "one"),
        (key, sealed, "two"),
        (key, changed, "one"),
        (key, sealed[:20], "one"),
        (key, b"\x02" + sealed[1:], "one"),
        (key, b"", "one"),
    ]:
        with pytest.raises(sealing.SealBroken):
            sealing.unseal(wrong_key, wrong_bytes, context)


def test_a_nodes_certificate_says_who_it_is() -> None:
    cluster_id, key = new_id(), keys.new_private_key()
    authority = CertificateAuthority.create(cluster_id, NOW)
    leaf = load_certificate(authority.sign_node(key.public_key(), cluster_id, NOW))
    node_id = keys.node_id_of(key.public_key())
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert node_id == base32.encode(hashlib.sha256(der).digest())[:26]
    assert parse_peer(certificate_der(leaf), cluster_id) == PeerIdentity(PeerKind.NODE, node_id)
    assert cluster_id_of(certificate_der(leaf)) == cluster_id
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{node_id}.node.fairway", "api.fairway"]
    assert validity_unix_ms(leaf) == (NOW - 3_600_000, NOW + 90 * DAY_MS)


def test_an_operators_certificate_says_who_it_is() -> None:
    cluster_id = new_id()
    authority = CertificateAuthority.create(cluster_id, NOW)
    key = keys.new_private_key().public_key()
    leaf = load_certificate(authority.sign_operator(key, cluster_id, "anna", NOW))
    peer = parse_peer(certificate_der(leaf), cluster_id)
    assert peer == PeerIdentity(PeerKind.OPERATOR, "anna")
    assert peer.actor == "operator/anna"
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(ValueError, match="operator's name"):
        authority.sign_operator(key, cluster_id, "../anna", NOW)


def test_certificates_of_another_cluster_are_refused() -> None:
    ours, theirs = new_id(), new_id()
    our_ca, their_ca = CertificateAuthority.create(ours, NOW), CertificateAuthority.create(theirs, NOW)
    key = keys.new_private_key().public_key()
    foreign = load_certificate(their_ca.sign_node(key, theirs, NOW))
    with pytest.raises(ValueError, match="another cluster"):
        parse_peer(certificate_der(foreign), ours)
    with pytest.raises(ValueError, match="not signed by this cluster's CA"):
        check_issued_by(foreign, our_ca.certificate, NOW)
    # One that claims our cluster but is signed by their CA gets past names, never past the signature.
    forged = load_certificate(their_ca.sign_node(key, ours, NOW))
    with pytest.raises(ValueError, match="not signed by this cluster's CA"):
        check_issued_by(forged, our_ca.certificate, NOW)
    assert ca_fingerprint(our_ca.certificate) != ca_fingerprint(their_ca.certificate)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (NOW, None),
        (NOW - 3_000_000, None),
        (NOW - 4_000_000, "not valid before"),
        (NOW + 90 * DAY_MS, "has expired"),
    ],
)
def test_validity_allows_an_hour_of_skew(at: int, words: str | None) -> None:
    cluster_id = new_id()
    authority = CertificateAuthority.create(cluster_id, NOW)
    leaf = load_certificate(authority.sign_node(keys.new_private_key().public_key(), cluster_id, NOW))
    if words is None:
        check_issued_by(leaf, authority.certificate, at)
    else:
        with pytest.raises(ValueError, match=words):
            check_issued_by(leaf, authority.certificate, at)


def test_a_node_id_that_is_not_its_keys_is_refused() -> None:
    cluster_id = new_id()
    authority = CertificateAuthority.create(cluster_id, NOW)
    names = (x509.UniformResourceIdentifier(f"fairway://{cluster_id}/node/{new_id()}"),)
    key = keys.new_private_key().public_key()
    forged = (
        x509.CertificateBuilder()
        .subject_name(authority.certificate.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(authority.certificate.not_valid_before_utc)
        .not_valid_after(authority.certificate.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    with pytest.raises(ValueError, match="another node's key"):
        parse_peer(certificate_der(forged), cluster_id)


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x01", b"garbage"])
def test_garbage_is_no_peer(der: bytes) -> None:
    with pytest.raises(ValueError):
        parse_peer(der, new_id())


def test_the_ca_itself_is_no_peer() -> None:
    cluster_id = new_id()
    authority = CertificateAuthority.create(cluster_id, NOW)
    with pytest.raises(ValueError, match="no identity"):
        parse_peer(certificate_der(authority.certificate), cluster_id)


def test_a_ca_comes_back_from_pem_with_its_own_key_only() -> None:
    authority = CertificateAuthority.create(new_id(), NOW)
    again = CertificateAuthority.from_pem(authority.certificate_pem(), authority.key_pem())
    assert again.certificate == authority.certificate
    with pytest.raises(ValueError, match="does not belong"):
        CertificateAuthority.from_pem(authority.certificate_pem(), keys.private_key_pem(keys.new_private_key()))


def test_requests_prove_the_key() -> None:
    key = keys.new_private_key()
    assert keys.requested_key(keys.certificate_request_pem(key)) == key.public_key()


def _request(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def test_bad_requests_are_refused() -> None:
    good = x509.load_pem_x509_csr(keys.certificate_request_pem(keys.new_private_key()))
    broken = bytearray(good.public_bytes(serialization.Encoding.DER))
    broken[-1] ^= 1
    broken_pem = x509.load_der_x509_csr(bytes(broken)).public_bytes(serialization.Encoding.PEM)
    p384 = ec.generate_private_key(ec.SECP384R1())
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for pem in (b"", b"garbage", b"x" * 20_000, broken_pem, _request(p384), _request(rsa_key)):
        with pytest.raises(ValueError):
            keys.requested_key(pem)


def test_private_keys_of_other_kinds_are_refused() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(ValueError, match="P-256"):
        keys.load_private_key(keys.private_key_pem(p384))
    with pytest.raises(ValueError):
        keys.load_private_key(b"garbage")
