"""Secrets as the store keeps them: sealed under the cluster key. Configs are kept as they are."""

from __future__ import annotations

import hashlib
import hmac

from daemon.errors import Kind, Refused
from daemon.identity.sealing import SealBroken, seal, unseal
from proto import objects_pb2 as objects

CONTEXT = "fairway/secret"
_FINGERPRINT_LABEL = b"fairway/secret-fingerprint"


def prepared(
    kind: objects.FileKind.ValueType,
    tenant: str,
    name: str,
    content: bytes,
    cluster_id: str,
    cluster_key: bytes | None,
) -> objects.TaskFile:
    """The file as it may be stored, still without id and version: nothing of a secret is in it in the clear. Raises
    Refused on a host without the cluster key."""
    file = objects.TaskFile(kind=kind, size_bytes=len(content))
    file.meta.name, file.meta.tenant, file.meta.format = name, tenant, 1
    if kind != objects.FILE_KIND_SECRET:
        file.content = content
        return file
    key = _required(cluster_key)
    file.sealed = seal(key, content, _context(cluster_id, file))
    file.fingerprint = _fingerprint(key, _context(cluster_id, file), content)
    return file


def content_of(file: objects.TaskFile, cluster_id: str, cluster_key: bytes | None) -> bytes:
    """What is in it, in the clear. Raises Refused on a host without the cluster key, or with a wrong one."""
    if file.kind != objects.FILE_KIND_SECRET:
        return file.content
    try:
        return unseal(_required(cluster_key), file.sealed, _context(cluster_id, file))
    except SealBroken as error:
        raise Refused(f"secret {file.meta.name} cannot be opened on this host: {error}", Kind.NOT_POSSIBLE) from error


def same_content(one: objects.TaskFile, other: objects.TaskFile) -> bool:
    """Whether two versions hold the same, told without opening them."""
    return (one.content, one.fingerprint, one.size_bytes) == (other.content, other.fingerprint, other.size_bytes)


def _required(cluster_key: bytes | None) -> bytes:
    if cluster_key is None:
        raise Refused("this host has no cluster key: only voters seal and open secrets", Kind.NOT_POSSIBLE)
    return cluster_key


def _fingerprint(cluster_key: bytes, context: str, content: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) with a key of its own: what is short cannot be guessed without that."""
    key = hmac.digest(cluster_key, _FINGERPRINT_LABEL, hashlib.sha256)
    return hmac.digest(key, context.encode() + b"\0" + content, hashlib.sha256)


def _context(cluster_id: str, file: objects.TaskFile) -> str:
    return f"{CONTEXT}/{cluster_id}/{file.meta.tenant}/{file.meta.name}"
