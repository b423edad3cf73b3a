"""Lines of logs that are JSON objects: their fields, and which lines a filter wants. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Filter:
    """One `--where`: a field, as a path of names, and the text that it is to have, or not to have."""

    path: tuple[str, ...]
    value: str
    wanted: bool


def parse_filter(text: str) -> Filter:
    """Of "level=error", "http.status!=200". Raises ValueError."""
    name, equals, value = text.partition("=")
    wanted = not name.endswith("!")
    name = name.removesuffix("!").strip()
    if not equals or not name:
        raise ValueError(f"{text!r} is not of the form FIELD=VALUE or FIELD!=VALUE")
    return Filter(tuple(name.split(".")), value, wanted)


def object_of(text: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is no JSON object."""
    if not text.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:  # also of bytes that are no UTF-8
        return None
    return found if isinstance(found, dict) else None


def field(found: dict[str, Any], path: Sequence[str]) -> object:
    """The value at a path; "a.b" is the field "a.b" or the "b" of the "a". None where there is none."""
    if ".".join(path) in found:
        return found[".".join(path)]
    value: object = found
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(value: object) -> str:
    """As JSON has it, texts without quotes; a field that is not there: empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def matches(found: dict[str, Any] | None, filters: Sequence[Filter]) -> bool:
    """Whether a line has what all of them want; one that is no object has no fields."""
    return all((text_of(field(found or {}, each.path)) == each.value) == each.wanted for each in filters)
