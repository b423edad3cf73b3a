"""Secrets in the store: sealed under the cluster key, which only voters hold, and only on disk."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
CONTEXT_CA_KEY = "fairway/ca-private-key"

_FORMAT = b"\x01"
_NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2: 96 bits
_TAG_BYTES = 16


class SealBroken(ValueError):
    """What was sealed does not open: another key, another context, or changed bytes."""


def new_key() -> bytes:
    """A fresh cluster key of 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, plaintext: bytes, context: str) -> bytes:
    """AES-256-GCM: format byte 1, nonce of 12 bytes, ciphertext with its tag of 16 bytes.

    `context` says what is sealed; the bytes open under no other, so that one sealed field cannot be put in
    another's place. The nonce is random: a key serves fewer than 2^32 seals by far.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plaintext, context.encode())


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """The plaintext. Raises SealBroken."""
    if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _FORMAT:
        raise SealBroken(f"cannot open {context}: these are not sealed bytes of a known format")
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, context.encode())
    except InvalidTag:
        raise SealBroken(f"cannot open {context}: this host's cluster key is not the one it was sealed with") from None
