"""What the store keeps: for each kind of object its table, its indexes and what must be unique.

A secondary index maps an object to the keys under which `Table.by` finds it: a key is one value or a
tuple, as named below. A unique key is one value or None, which means that this object claims nothing.
The tables are part of the replicated state machine: every member must derive the same keys from the same
object, so the functions here are pure and change only together with the object's `format`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message

from proto import objects_pb2 as objects
from raft.features import WORKLOADS_LEVEL

Key = Hashable
KeysOf = Callable[[Any], tuple[Key, ...]]
UniqueKeyOf = Callable[[Any], Key | None]


@dataclass(frozen=True)
class Kind:
    """One kind of stored object: message class, table's name, index name -> keys, unique name -> key.

    `level`: the feature level (raft/features.py) that a transaction which writes it needs."""

    message: type[Message]
    table: str
    indexes: Mapping[str, KeysOf] = field(default_factory=dict)
    unique: Mapping[str, UniqueKeyOf] = field(default_factory=dict)
    level: int = 1


def meta_of(stored: Message) -> objects.Meta:
    """The Meta that every stored object begins with."""
    return cast(objects.Meta, cast(Any, stored).meta)


def kind_of_message(message: type[Message]) -> Kind:
    """The kind of a message class; TypeError for one that is never stored."""
    kind = _BY_MESSAGE.get(message)
    if kind is None:
        raise TypeError(f"{message.__name__} is not an object of the store (raft/schema.py)")
    return kind


def kind_of_table(table: str) -> Kind | None:
    """The kind kept in `table`, or None where no kind is."""
    return _BY_TABLE.get(table)


def _one(value: str) -> tuple[Key, ...]:
    return (value,) if value else ()


def _name(stored: Any) -> Key | None:
    return stored.meta.name or None


def _app(stored: Any) -> tuple[Key, ...]:
    return ((stored.meta.tenant, stored.app),)


def _name_in_app(stored: Any) -> Key | None:
    return (stored.meta.tenant, stored.app, stored.meta.name)


def _name_in_tenant(stored: Any) -> Key | None:
    return (stored.meta.tenant, stored.meta.name)


KINDS: tuple[Kind, ...] = (
    Kind(objects.Cluster, "clusters"),
    Kind(objects.Tenant, "tenants", unique={"name": _name}),
    Kind(objects.Node, "nodes", unique={"name": _name}),
    Kind(objects.JoinToken, "join_tokens"),
    Kind(objects.App, "apps", unique={"name": _name_in_tenant}),  # key: (tenant, name)
    Kind(
        objects.Service,
        "services",
        indexes={"app": _app},  # key: (tenant, app)
        unique={"name": _name_in_app},  # key: (tenant, app, name)
    ),
    Kind(
        objects.Task,
        "tasks",
        indexes={
            "node": lambda task: _one(task.node_id),
            "service": lambda task: _one(task.service_id),
            "app": _app,  # key: (tenant, app)
            "address": lambda task: _one(task.address),
        },
    ),
    Kind(
        objects.Network,
        "networks",
        indexes={"app": _app},
        unique={"name": _name_in_app},
    ),
    Kind(objects.Policy, "policies", unique={"name": _name_in_tenant}),  # key: (tenant, name)
    Kind(
        objects.Volume,
        "volumes",
        indexes={"app": _app, "node": lambda volume: _one(volume.node_id)},
        unique={"name": _name_in_app},
    ),
    Kind(
        objects.TaskFile,
        "task_files",
        indexes={"name": lambda file: ((file.meta.tenant, file.kind, file.meta.name),)},
        unique={"version": lambda file: (file.meta.tenant, file.kind, file.meta.name, file.version)},
        level=WORKLOADS_LEVEL,
    ),
    Kind(
        objects.Image,
        "images",
        indexes={"manifest": lambda image: _one(image.manifest_digest)},
        unique={"name": _name},
    ),
    Kind(objects.Registry, "registries", unique={"name": _name}, level=WORKLOADS_LEVEL),
    Kind(
        objects.Lease,
        "leases",
        indexes={"holder": lambda lease: _one(lease.holder_id), "kind": lambda lease: (lease.kind,)},
        unique={"name": _name},
    ),
)

_BY_MESSAGE: dict[type[Message], Kind] = {kind.message: kind for kind in KINDS}
_BY_TABLE: dict[str, Kind] = {kind.table: kind for kind in KINDS}
