"""From a passphrase to the key that seals the cluster key in a backup, and the seal itself.

scrypt (RFC 7914) with N = 2^17, r = 8, p = 1 takes about half a second and 128 MiB a try: what a guess costs.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from proto.backup_pb2 import BackupSeal

KEY_BYTES = 32
SALT_BYTES = 16
PASSPHRASE_BYTES_MIN = 12
PASSPHRASE_BYTES_MAX = 4096
SCRYPT_LOG2_N = 17
SCRYPT_LOG2_N_MAX = 20  # 1 GiB with r = 8: a file must not make its reader take more
SCRYPT_R = 8
SCRYPT_P = 1
_FORMAT = b"\x01"
_NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2
_TAG_BYTES = 16


class WrongPassphrase(ValueError):
    """The seal does not open, or a passphrase cannot be used; the message says why."""


def passphrase_of(content: bytes) -> bytes:
    """The passphrase in a file's content: its first line. WrongPassphrase where it is too short or too long."""
    passphrase = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not PASSPHRASE_BYTES_MIN <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise WrongPassphrase(
            f"the passphrase has {len(passphrase)} bytes; its file's first line must have "
            f"{PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX}"
        )
    return passphrase


def new_seal() -> BackupSeal:
    """A fresh salt and scrypt's numbers, nothing sealed yet."""
    return BackupSeal(
        salt=secrets.token_bytes(SALT_BYTES), scrypt_log2_n=SCRYPT_LOG2_N, scrypt_r=SCRYPT_R, scrypt_p=SCRYPT_P
    )


def sealing_key(passphrase: bytes, seal: BackupSeal) -> bytes:
    """The key that a passphrase makes with a seal's salt and numbers. WrongPassphrase for absurd numbers."""
    if not (
        SALT_BYTES <= len(seal.salt) <= 64
        and 10 <= seal.scrypt_log2_n <= SCRYPT_LOG2_N_MAX
        and seal.scrypt_r == SCRYPT_R
        and 1 <= seal.scrypt_p <= 4
    ):
        raise WrongPassphrase("the backup's numbers for scrypt are not sane: it is damaged, or no backup of Fairway")
    kdf = Scrypt(salt=seal.salt, length=KEY_BYTES, n=1 << seal.scrypt_log2_n, r=seal.scrypt_r, p=seal.scrypt_p)
    return kdf.derive(passphrase)


def sealed(seal: BackupSeal, key: bytes, secret: bytes, cluster_id: str) -> BackupSeal:
    """`seal` with `secret` in it, bound to the cluster's id."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    filled = BackupSeal()
    filled.CopyFrom(seal)
    filled.sealed_cluster_key = _FORMAT + nonce + AESGCM(key).encrypt(nonce, secret, _context(cluster_id))
    return filled


def unsealed(seal: BackupSeal, key: bytes, cluster_id: str) -> bytes:
    """What was sealed. WrongPassphrase."""
    content = seal.sealed_cluster_key
    if len(content) < 1 + _NONCE_BYTES + _TAG_BYTES or content[:1] != _FORMAT or len(key) != KEY_BYTES:
        raise WrongPassphrase("the cluster key in the backup is not sealed in a known way")
    nonce, ciphertext = content[1 : 1 + _NONCE_BYTES], content[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, _context(cluster_id))
    except InvalidTag:
        raise WrongPassphrase("the passphrase is not the one that the backup was made with") from None


def _context(cluster_id: str) -> bytes:
    return f"fairway/backup/cluster-key/{cluster_id}".encode()
