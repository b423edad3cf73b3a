"""Parts that the JSON schema of Compose files is made of. A variable (`${NAME}`) may stand for every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
NUMBER: Schema = {"type": ["number", "string"]}
COUNT: Schema = {"type": ["integer", "string"]}
FLAG: Schema = {"type": ["boolean", "string"]}
SIZE: Schema = {"type": ["integer", "string"], "description": 'bytes, or like "64m"'}
DURATION: Schema = {"type": ["string", "integer"], "description": 'like "90s" or "1m30s"'}
_VARIABLE: Schema = {"type": "string", "pattern": r"\$"}


def described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


def choice(words: Sequence[str], description: str = "") -> Schema:
    return described({"anyOf": [{"enum": list(words)}, _VARIABLE]}, description)


def service_word(words: Sequence[str], description: str) -> Schema:
    """One of `words`, or service:NAME, which is described."""
    of_service = described({"type": "string", "pattern": "^service:."}, description)
    return {"anyOf": [{"enum": list(words)}, of_service, _VARIABLE]}


def items(schema: Schema, description: str = "") -> Schema:
    return described({"type": ["array", "null"], "items": schema}, description)


def text_or_texts(description: str) -> Schema:
    return described({"anyOf": [TEXT, items(TEXT)]}, description)


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def mapping(description: str, properties: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """A mapping that has these keys, those that begin with x-, and no others."""
    found: Schema = {
        "type": ["object", "null"],
        "properties": dict(properties),
        "patternProperties": {"^x-(?!fairway$)": {}},
        "additionalProperties": False,
    }
    if required:
        found["required"] = list(required)
    return described(found, description)


def named(schema: Schema) -> Schema:
    """A mapping whose keys are names that people give."""
    return {"type": ["object", "null"], "patternProperties": {"^x-": {}}, "additionalProperties": schema}


def pairs(description: str) -> Schema:
    """NAME=VALUE as a list or as a mapping."""
    return described({"anyOf": [items(TEXT), {"type": ["object", "null"], "additionalProperties": TEXT}]}, description)
