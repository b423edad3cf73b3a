"""`schema`: what editors check and complete Compose files by."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cli.compose.schema import schema
from cli.failure import EXIT_OK

LINES_DEEP = 5  # below, what belongs to one key stands on one line


def compose(options: argparse.Namespace) -> int:
    print(text(), end="")
    return EXIT_OK


def text() -> str:
    """The schema as it is published in docs/compose.schema.json: a line for each key of a service."""
    return _lines(schema(), LINES_DEEP, "") + "\n"


def _lines(value: Any, deep: int, indent: str) -> str:
    if not deep or not isinstance(value, dict) or not value:
        return json.dumps(value, sort_keys=True)
    further = indent + " "
    parts = [f"{further}{json.dumps(key)}: {_lines(value[key], deep - 1, further)}" for key in sorted(value)]
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
