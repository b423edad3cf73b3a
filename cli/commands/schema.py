"""`schema`: what editors check and complete Compose files by."""

from __future__ import annotations

import argparse
import json

from cli.compose.schema import schema
from cli.failure import EXIT_OK


def compose(options: argparse.Namespace) -> int:
    print(text(), end="")
    return EXIT_OK


def text() -> str:
    """The schema as it is published in docs/compose.schema.json."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"
