"""Who this host is: key, certificate, the cluster's CA and key, and whom to talk to after a restart.

Files of the folder: node.key, cluster.key (voters) and cluster.json with mode 0600, node.crt, ca.crt.
cluster.json is written last: without it the host belongs to no cluster.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509

from daemon.identity import certificates, keys
from daemon.identity.atomic_files import sync_folder, write_atomically

logger = logging.getLogger(__name__)

KNOWN_NODES_MAX = 64  # a host keeps the places of this many voters
_FORMAT = 1
_KEY_FILE, _CERTIFICATE_FILE, _CA_FILE = "node.key", "node.crt", "ca.crt"
_CLUSTER_KEY_FILE, _CLUSTER_FILE = "cluster.key", "cluster.json"


class IdentityBroken(ValueError):
    """The folder holds an identity that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class KnownNode:
    """A voter to reconnect to."""

    node_id: str
    name: str
    address: str
    api_port: int
    raft_port: int
    join_port: int


@dataclass(frozen=True)
class Membership:
    """What cluster.json holds."""

    cluster_id: str
    cluster_name: str
    node_id: str
    node_name: str
    voter: bool  # raft runs here (whether the host has a vote, the log says)
    address: str  # underlay address that this host was joined with
    nodes: tuple[KnownNode, ...] = ()


class Identity:
    """The identity of a host that belongs to a cluster.

    Only `renew` and `remember` change it; both are durable when they return. TLS contexts and credentials
    are in daemon/identity/tls.py.
    """

    def __init__(
        self,
        folder: Path,
        membership: Membership,
        key: keys.PrivateKey,
        certificate: x509.Certificate,
        ca_certificate: x509.Certificate,
        cluster_key: bytes | None,
    ) -> None:
        """Raises ValueError where the parts do not belong together."""
        if membership.voter != (cluster_key is not None):
            raise ValueError("a voter has the cluster's key, and nobody else has")
        self.folder = folder
        self.membership = membership
        self.key = key
        self.ca_certificate = ca_certificate
        self.cluster_key = cluster_key
        self._require_own(certificate)
        self.certificate = certificate
        self.generation = 0  # counts renewals since the daemon started

    @property
    def cluster_id(self) -> str:
        return self.membership.cluster_id

    @property
    def node_id(self) -> str:
        return self.membership.node_id

    @property
    def key_path(self) -> Path:
        return self.folder / _KEY_FILE

    @property
    def certificate_path(self) -> Path:
        return self.folder / _CERTIFICATE_FILE

    @property
    def ca_pem(self) -> bytes:
        return certificates.certificate_pem(self.ca_certificate)

    @classmethod
    def load(cls, folder: Path) -> Identity | None:
        """The identity in `folder`; None where the host belongs to no cluster. Raises IdentityBroken."""
        try:
            membership = _membership_from((folder / _CLUSTER_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise IdentityBroken(f"{folder / _CLUSTER_FILE} cannot be read: {error}. {_REMEDY}") from error
        try:
            cluster_key = (folder / _CLUSTER_KEY_FILE).read_bytes() if membership.voter else None
            return cls(
                folder,
                membership,
                keys.load_private_key((folder / _KEY_FILE).read_bytes()),
                certificates.load_certificate((folder / _CERTIFICATE_FILE).read_bytes()),
                certificates.load_certificate((folder / _CA_FILE).read_bytes()),
                cluster_key,
            )
        except (OSError, ValueError) as error:
            raise IdentityBroken(f"the identity in {folder} is damaged: {error}. {_REMEDY}") from error

    def write_keys(self) -> None:
        """Writes all but cluster.json: enough for TLS, but the host belongs to no cluster yet.

        Raises OSError. The first host of a cluster calls `save` once its first transaction is durable.
        """
        _prepare_folder(self.folder)
        write_atomically(self.key_path, keys.private_key_pem(self.key), 0o600)
        write_atomically(self.certificate_path, certificates.certificate_pem(self.certificate), 0o644)
        write_atomically(self.folder / _CA_FILE, self.ca_pem, 0o644)
        if self.cluster_key is not None:
            write_atomically(self.folder / _CLUSTER_KEY_FILE, self.cluster_key, 0o600)

    def save(self) -> None:
        """Writes everything; when it returns, the host belongs to the cluster. Raises OSError."""
        self.write_keys()
        self._write_membership(self.membership)

    def renew(self, certificate_pem: bytes, now_unix_ms: int) -> None:
        """Swaps in a new certificate for the same key; the next TLS handshake uses it.

        Raises ValueError (the old one stays): another key, CA, cluster or node, or not valid now.
        Raises OSError where it cannot be written.
        """
        certificate = certificates.load_certificate(certificate_pem)
        certificates.check_issued_by(certificate, self.ca_certificate, now_unix_ms)
        self._require_own(certificate)
        # The key never changes, so that one rename is the whole swap.
        write_atomically(self.certificate_path, certificate_pem, 0o644)
        self.certificate = certificate
        self.generation += 1

    def remember(self, nodes: Sequence[KnownNode], node_name: str | None = None) -> None:
        """Keeps the places of voters (at most KNOWN_NODES_MAX) and the host's name. Raises OSError."""
        current = self.membership
        changed = Membership(
            current.cluster_id,
            current.cluster_name,
            current.node_id,
            current.node_name if node_name is None else node_name,
            current.voter,
            current.address,
            tuple(nodes[:KNOWN_NODES_MAX]),
        )
        if changed != current:
            self._write_membership(changed)
            self.membership = changed

    def forget(self) -> None:
        """The host leaves its cluster: certificates and keys are removed, cluster.json first."""
        for name in (_CLUSTER_FILE, _CLUSTER_KEY_FILE, _CERTIFICATE_FILE, _CA_FILE, _KEY_FILE):
            (self.folder / name).unlink(missing_ok=True)
        sync_folder(self.folder)

    def _require_own(self, certificate: x509.Certificate) -> None:
        peer = certificates.parse_peer(certificates.certificate_der(certificate), self.cluster_id)
        if peer != certificates.PeerIdentity(certificates.PeerKind.NODE, self.node_id):
            raise ValueError(f"the certificate is for {peer.actor}, not for node/{self.node_id}")
        if certificate.public_key() != self.key.public_key():
            raise ValueError("the certificate is for another key than this host's")

    def _write_membership(self, membership: Membership) -> None:
        document = {"format": _FORMAT, **asdict(membership)}
        write_atomically(self.folder / _CLUSTER_FILE, json.dumps(document, indent=2).encode() + b"\n", 0o600)


def load_or_create_key(folder: Path) -> keys.PrivateKey:
    """The host's key for joining; one that an earlier attempt left is taken, so the id stays.

    Raises IdentityBroken where there is a key that cannot be read, and OSError.
    """
    path = folder / _KEY_FILE
    try:
        return keys.load_private_key(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise IdentityBroken(f"{path} is damaged: {error}. Remove it; the host then gets a new id.") from error
    key = keys.new_private_key()
    _prepare_folder(folder)
    write_atomically(path, keys.private_key_pem(key), 0o600)
    return key


_REMEDY = (
    "Restore the folder from a backup, or remove it and let the host join again (and `fairway node rm` its old node)."
)


def _prepare_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _membership_from(data: bytes) -> Membership:
    document = json.loads(data)
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise ValueError("it was written by another version of Fairway")
    document["nodes"] = tuple(KnownNode(**node) for node in document.get("nodes", ()))
    return Membership(**document)
