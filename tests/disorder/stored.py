"""What each host's store holds, read from its database as it lies on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from lab.cluster import Lab
from raft.schema import KINDS

Object = TypeVar("Object", bound=Message)


@dataclass(frozen=True)
class Stored:
    """All objects at one revision."""

    revision: int
    objects: Mapping[type[Message], list[Message]]

    def all(self, kind: type[Object]) -> list[Object]:
        return [each for each in self.objects.get(kind, []) if isinstance(each, kind)]


def read(lab: Lab, host: str) -> Stored:
    """Of a voter."""
    path = lab.paths.host_state(host) / "fairway/raft/cluster.sqlite"
    found: dict[type[Message], list[Message]] = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        database.execute("begin")  # all of one moment
        ((revision,),) = database.execute("select revision from store_state").fetchall()
        for kind in KINDS:
            rows = database.execute(f"select object from {kind.table} order by id")
            found[kind.message] = [kind.message.FromString(content) for (content,) in rows]
    return Stored(revision, found)


def difference(one: Stored, other: Stored) -> str:
    """Which table of two stores at one revision differs; empty where none does."""
    for kind in KINDS:
        if one.objects[kind.message] != other.objects[kind.message]:
            return kind.table
    return ""
