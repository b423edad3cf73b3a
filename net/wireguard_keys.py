"""The private keys of a host's WireGuard devices: made here, kept here in files of mode 0600, never sent or logged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from net.errors import NetworkError

KEY_BYTES = 32


class WireGuardKeys:
    """A folder with one file for each epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._private: dict[int, bytes] = {}

    def private(self, epoch: int) -> bytes:
        """The 32 bytes of the key of an epoch, made at its first use. Raises NetworkError."""
        if epoch not in self._private:
            path = self._path(epoch)
            try:
                self._private[epoch] = _read(path) or _make(path)
            except OSError as error:
                raise NetworkError(f"keep a WireGuard key in {path}: {error.strerror}") from error
        return self._private[epoch]

    def public(self, epoch: int) -> bytes:
        return public_key(self.private(epoch))

    def keep_only(self, epochs: Collection[int]) -> None:
        """Forgets and deletes the keys of all other epochs: what was encrypted with them is safe from now on."""
        for epoch in self._private.keys() - set(epochs):
            del self._private[epoch]
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.key"):
                if path not in {self._path(epoch) for epoch in epochs}:
                    path.unlink()

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}.key"


def public_key(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _read(path: Path) -> bytes | None:
    """None where there is none, or one that is not whole."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data if len(data) == KEY_BYTES else None


def _make(path: Path) -> bytes:
    """A new key, on the disk before it is used: others are told the public one, and a restart must not change it."""
    key = X25519PrivateKey.generate().private_bytes_raw()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return key
