"""Passwords of registries as the store keeps them: sealed under the cluster key, opened by the voter that pulls."""

from __future__ import annotations

from daemon.errors import Kind, Refused
from daemon.identity.identity import Identity
from daemon.identity.sealing import SealBroken, seal, unseal
from proto import objects_pb2 as objects

CONTEXT = "fairway/registry"


def sealed_password(identity: Identity, registry: str, password: bytes) -> bytes:
    """Raises Refused on a host without the cluster key."""
    return seal(_key(identity), password, f"{CONTEXT}/{identity.cluster_id}/{registry}")


def opened_password(identity: Identity, registry: objects.Registry) -> str:
    """Raises Refused on a host without the cluster key, or with a wrong one."""
    name = registry.meta.name
    try:
        plain = unseal(_key(identity), registry.sealed_password, f"{CONTEXT}/{identity.cluster_id}/{name}")
    except SealBroken as error:
        raise Refused(f"the password for registry {name} cannot be opened: {error}", Kind.NOT_POSSIBLE) from error
    return plain.decode(errors="surrogateescape")


def _key(identity: Identity) -> bytes:
    if identity.cluster_key is None:
        raise Refused("this host has no cluster key: only voters log in to registries", Kind.NOT_POSSIBLE)
    return identity.cluster_key
