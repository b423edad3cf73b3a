"""One table of the store: objects by id, by secondary index and by unique key, all in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from google.protobuf.message import Message

from raft.schema import Key, Kind, meta_of

M = TypeVar("M", bound=Message)


class Table(Generic[M]):
    """Objects of one kind. They are shared and must never be altered; copy one to change it."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._objects: dict[str, M] = {}
        self._indexes: dict[str, dict[Key, dict[str, M]]] = {name: {} for name in kind.indexes}
        self._unique: dict[str, dict[Key, M]] = {name: {} for name in kind.unique}

    @classmethod
    def filled(cls, kind: Kind, stored: dict[str, M]) -> Table[M]:
        """A table of these objects by id; takes the dictionary over."""
        table = cls(kind)
        table._objects = stored
        if kind.indexes or kind.unique:
            for identifier, one in stored.items():
                table._link(identifier, one)
        return table

    def copied(self) -> Table[M]:
        """A table of the same objects, which changes by itself from now on."""
        copy = Table[M](self.kind)
        copy._objects = self._objects.copy()
        copy._indexes = {
            name: {key: bucket.copy() for key, bucket in index.items()} for name, index in self._indexes.items()
        }
        copy._unique = {name: holders.copy() for name, holders in self._unique.items()}
        return copy

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[M]:
        """All objects as they are now; the table may change while the iterator is in use."""
        return iter(list(self._objects.values()))

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._objects

    def get(self, identifier: str) -> M | None:
        """The object with this id."""
        return self._objects.get(identifier)

    def by(self, index: str, key: Key) -> list[M]:
        """All objects under `key` of a secondary index of raft/schema.py; KeyError for an unknown index."""
        return list(self._indexes[index].get(key, {}).values())

    def unique(self, name: str, key: Key) -> M | None:
        """The one object that holds `key` of a unique key of raft/schema.py; KeyError for an unknown one."""
        return self._unique[name].get(key)

    def replace(self, identifier: str, after: Message | None) -> M | None:
        """Only for the store: puts or removes one object, returns what was there."""
        before = self._objects.pop(identifier, None)
        if before is not None:
            self._unlink(identifier, before)
        if after is not None:
            self._link(identifier, cast(M, after))
        return before

    def _unlink(self, identifier: str, stored: M) -> None:
        for name, keys_of in self.kind.indexes.items():
            index = self._indexes[name]
            for key in keys_of(stored):
                bucket = index[key]
                bucket.pop(identifier, None)
                if not bucket:
                    del index[key]
        for name, key_of in self.kind.unique.items():
            claimed = key_of(stored)
            holder = self._unique[name].get(claimed)
            # Another object of the same transaction may have taken the key over already.
            if holder is not None and meta_of(holder).id == identifier:
                del self._unique[name][claimed]

    def _link(self, identifier: str, stored: M) -> None:
        self._objects[identifier] = stored
        for name, keys_of in self.kind.indexes.items():
            for key in keys_of(stored):
                self._indexes[name].setdefault(key, {})[identifier] = stored
        for name, key_of in self.kind.unique.items():
            claimed = key_of(stored)
            if claimed is not None:
                self._unique[name][claimed] = stored
