"""`name` and `external` of networks and volumes: what other apps call them, and those of other apps."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cli.compose.reader import Field, Reader
from proto import control_pb2

KEYS = frozenset({"external", "name"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")


def read_external(
    reader: Reader, field: Field, known: Mapping[str, Field], spec: control_pb2.NetworkSpec | control_pb2.VolumeSpec
) -> bool:
    """Fills `spec`; True where another app has it, and so says all the rest about it."""
    if "name" in known:
        spec.shared_name = reader.text(known["name"])
        if spec.shared_name and not _NAME.fullmatch(spec.shared_name):
            reader.refuse(known["name"], f"{spec.shared_name!r} is not a name (letters, digits, _, . and -)")
    spec.external = "external" in known and reader.boolean(known["external"])
    if spec.external:
        for key in sorted(known.keys() - KEYS):
            reader.refuse(known[key], "has no effect on what is external; the app that has it says so")
    return spec.external
