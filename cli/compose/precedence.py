"""`x-fairway.priority`, `preempt` and `group`: who is placed first, who is stopped for whom, who is placed as one."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cli.compose.reader import Field, Reader
from proto import objects_pb2

KEYS = frozenset({"priority", "preempt", "group"})
_PRIORITY_MAX = 1_000
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def read_precedence(reader: Reader, entries: Mapping[str, Field], spec: objects_pb2.ServiceSpec) -> None:
    """Of the entries of `x-fairway`; what says the same as nothing leaves nothing in `spec`."""
    precedence = objects_pb2.Precedence()
    if "priority" in entries:
        precedence.priority = reader.integer(entries["priority"], -_PRIORITY_MAX, _PRIORITY_MAX)
    if "preempt" in entries:
        precedence.never_preempts = not reader.boolean(entries["preempt"])
    if "group" in entries:
        group = reader.text(entries["group"]).strip()
        if _GROUP.fullmatch(group) is None:
            reader.refuse(
                entries["group"], f"{group!r} cannot be a group's name: use letters, digits, '.', '_' and '-'"
            )
        precedence.group = group
    if precedence != objects_pb2.Precedence():
        spec.precedence.CopyFrom(precedence)
