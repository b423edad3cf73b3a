"""`environment` and `env_file` of a service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cli.compose import dotenv
from cli.compose.named_files import read_values
from cli.compose.reader import Field, Reader
from proto import objects_pb2

ENV_FILE_BYTES_MAX = 1 << 20


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where the file is, and the environment that names without values are taken from."""

    folder: Path
    environment: Mapping[str, str]


def read_environment(
    reader: Reader,
    surroundings: Surroundings,
    entries: dict[str, Field],
    container: objects_pb2.ContainerSpec,
) -> None:
    """env_file first, then environment, which wins."""
    found: dict[str, str] = {}
    if "env_file" in entries:
        field_ = entries["env_file"]
        for each in reader.elements(field_) if field_.is_list else [field_]:
            found.update(_env_file(reader, surroundings, each))
    if "environment" in entries:
        for below, name, value in reader.pairs(entries["environment"]):
            if not name or "\0" in name:
                reader.refuse(below, "has a variable without a name")
            elif value is not None:
                found[name] = value
            elif name in surroundings.environment:
                found[name] = surroundings.environment[name]
            else:
                found.pop(name, None)
    container.environment.update(found)


def _env_file(reader: Reader, surroundings: Surroundings, field_: Field) -> Mapping[str, str]:
    required, raw, path_field = True, False, field_
    if field_.is_mapping:
        entries = reader.known_entries(field_, frozenset({"path", "required", "format"}))
        if "path" not in entries:
            reader.refuse(field_, "has no path")
            return {}
        path_field = entries["path"]
        required = reader.boolean(entries["required"]) if "required" in entries else True
        raw = "format" in entries and reader.choice(entries["format"], {"raw": True}, False)
    name = reader.text(path_field)
    if not name:
        return {}

    def parse(text: str) -> Mapping[str, str]:
        return dotenv.parse_raw(text) if raw else dotenv.parse(text, surroundings.environment)

    return read_values(reader, path_field, name, ENV_FILE_BYTES_MAX, parse, required=required)
