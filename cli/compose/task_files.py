"""`configs` and `secrets`, of the file and of its services. What is in one is read only where a service uses it.

https://github.com/compose-spec/compose-spec/blob/main/08-configs.md and 09-secrets.md
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cli.compose.environment import Surroundings
from cli.compose.reader import Field, Reader
from proto import control_pb2, objects_pb2

FILE_BYTES_MAX = 500 << 10
KINDS = {"configs": objects_pb2.FILE_KIND_CONFIG, "secrets": objects_pb2.FILE_KIND_SECRET}
_WORDS = {objects_pb2.FILE_KIND_CONFIG: "config", objects_pb2.FILE_KIND_SECRET: "secret"}
_SECTIONS = {kind: section for section, kind in KINDS.items()}
_SOURCES = ("file", "environment", "content")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HINTS = {
    "driver": "Fairway keeps it itself",
    "driver_opts": "Fairway keeps it itself",
    "template_driver": "write what varies as ${VAR} in content, or make the file before",
}
Key = tuple[objects_pb2.FileKind.ValueType, str]  # kind, key in the file


class Service(Protocol):
    """What is read of a service: its spec, and files with their places in the Compose file."""

    spec: objects_pb2.ServiceSpec
    files: list[tuple[Field, objects_pb2.FileMount]]


@dataclass(frozen=True)
class Definition:
    """An entry below `configs` or `secrets`."""

    field: Field
    name: str  # in the cluster
    source: str  # of _SOURCES; empty: it is external
    value: Field | None  # of the source
    labels: Mapping[str, str]


def read_definitions(reader: Reader, top: Mapping[str, Field], app: str) -> dict[Key, Definition]:
    """What the file defines, whether or not a service uses it."""
    found = {}
    for section, kind in KINDS.items():
        for key, below in (reader.entries(top[section]) if section in top else {}).items():
            if not key.startswith("x-"):
                found[kind, key] = _definition(reader, below, kind, key, app)
    return found


def _definition(reader: Reader, below: Field, kind: objects_pb2.FileKind.ValueType, key: str, app: str) -> Definition:
    own = [name for name in _SOURCES if name != "content" or kind == objects_pb2.FILE_KIND_CONFIG]
    entries = reader.known_entries(below, frozenset([*own, "external", "name", "labels"]), _HINTS)
    external = "external" in entries and reader.boolean(entries["external"])
    sources = [name for name in own if name in entries]
    if external and sources:
        reader.refuse(entries[sources[0]], "belongs to what the file defines itself, not to what is external")
    elif not external and len(sources) != 1:
        reader.refuse(below, f"needs one of {', '.join(own)}, or external: true")
    name = reader.text(entries["name"]) if "name" in entries else key if external else f"{app}_{key}"
    if name and not _NAME.fullmatch(name):
        where = entries.get("name", below)
        reader.refuse(where, f"{name!r} is not the name of a {_WORDS[kind]} (letters, digits, _, . and -, at most 128)")
    labels = reader.labels(entries["labels"]) if "labels" in entries else {}
    source = "" if external or not sources else sources[0]
    return Definition(below, name, source, entries.get(source), labels)


def add_files(
    reader: Reader,
    services: Iterable[Service],
    definitions: Mapping[Key, Definition],
    surroundings: Surroundings,
    app: control_pb2.AppSpec,
) -> None:
    """Names in the cluster instead of keys in the file, and the content of what the file defines."""
    used: dict[Key, Definition] = {}
    for service in services:
        for field, mount in service.files:
            definition = definitions.get((mount.kind, mount.name))
            if definition is None:
                section = _SECTIONS[mount.kind]
                word = _WORDS[mount.kind]
                reader.refuse(field, f"names the {word} {mount.name!r}, which the file does not define under {section}")
                continue
            used[mount.kind, mount.name] = definition
            mount.name = definition.name
        service.spec.container.files.extend(mount for _, mount in service.files)
    names: dict[tuple[int, str], bytes] = {}
    for (kind, _), definition in used.items():
        if not definition.source:
            continue
        content = _content(reader, definition, surroundings)
        if names.setdefault((kind, definition.name), content) != content:
            reader.refuse(definition.field, f"has the name {definition.name!r} of another one with other content")
            continue
        if not any((one.kind, one.name) == (kind, definition.name) for one in app.files):
            app.files.add(kind=kind, name=definition.name, content=content, labels=definition.labels)


def _content(reader: Reader, definition: Definition, surroundings: Surroundings) -> bytes:
    """Never says what is in it."""
    value = definition.value
    assert value is not None
    text = reader.text(value, empty=definition.source == "content")
    if definition.source == "content":
        content = text.encode()
    elif definition.source == "environment":
        if text not in surroundings.environment:
            reader.refuse(value, f"names the variable {text}, which is not set")
            return b""
        content = surroundings.environment[text].encode()
    else:
        path = value.item.source.folder / text
        try:
            with path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            reader.refuse(value, f"{path} cannot be read: {error.strerror or error}")
            return b""
    if not content:
        reader.refuse(value, "is empty")
    elif len(content) > FILE_BYTES_MAX:
        reader.refuse(value, f"is larger than {FILE_BYTES_MAX} bytes")
    return content


def read_mounts(reader: Reader, field: Field, section: str, service: Service) -> None:
    """`configs` or `secrets` of a service, in the short and the long form."""
    kind = KINDS[section]
    for each in reader.elements(field):
        mount = objects_pb2.FileMount(kind=kind)
        target = ""
        if each.is_mapping:
            entries = reader.known_entries(each, frozenset({"source", "target", "uid", "gid", "mode"}))
            if "source" not in entries:
                reader.refuse(each, "needs source")
                continue
            mount.name = reader.text(entries["source"])
            target = reader.text(entries["target"]) if "target" in entries else ""
            for name in ("uid", "gid"):
                if name in entries:
                    setattr(mount, name, reader.integer(entries[name], 0, 2**31 - 1))
            if "mode" in entries:
                mount.mode = reader.integer(entries["mode"], 1, 0o777, base=8)
        else:
            mount.name = reader.text(each)
        if not mount.name:
            continue
        base = "/run/secrets" if kind == objects_pb2.FILE_KIND_SECRET else "/"
        mount.target = posixpath.normpath(posixpath.join(base, target or mount.name))
        mount.target = "/" + mount.target.lstrip("/")
        taken = [known.target for known in service.spec.container.mounts]
        taken += [known.target for _, known in service.files]
        if mount.target in taken:
            reader.refuse(each, f"mounts a second thing at {mount.target}")
        elif mount.target == "/":
            reader.refuse(each, "has no file as its target")
        else:
            service.files.append((each, mount))
