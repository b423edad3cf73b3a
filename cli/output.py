"""What commands print: neat tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from google.protobuf.message import Message

from cli import words

_COLOURS = {
    "green": "32",
    "yellow": "33",
    "red": "31",
    "cyan": "36",
    "magenta": "35",
    "blue": "34",
    "dim": "2",
    "bold": "1",
}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], width_columns: int = 0) -> list[str]:
    """Aligned lines. With a width (a terminal's), the last column is cut to fit; 0 never cuts."""
    cells = [list(headings), *[[_one_line(cell) for cell in row] for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headings))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        line = "   ".join([*padded, row[-1]]).rstrip()
        if 0 < width_columns < len(line):
            line = line[: width_columns - 1] + "…"
        lines.append(line)
    return lines


def _one_line(cell: str) -> str:
    return " ".join(cell.split()) if "\n" in cell else cell


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("\n".join(table(headings, rows, terminal_columns(sys.stdout))))


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_items(items: Iterable[Message]) -> None:
    """A JSON list of objects."""
    print_json([plain(item) for item in items])


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON values: every field is there, enums are lower-case words, 64-bit numbers are
    numbers, PEM is text and other bytes are hexadecimal; what may be absent and is, is null."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            below = field.message_type.fields_by_name["value"]
            found[field.name] = {str(key): _plain_value(below, each) for key, each in sorted(value.items())}
        elif field.is_repeated:
            found[field.name] = [_plain_value(field, each) for each in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _plain_value(field, value)
    return found


def _plain_value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return words.enum(field.enum_type, value)
    if isinstance(value, bytes):
        return value.decode(errors="replace") if field.name.endswith("_pem") else value.hex()
    return value


def terminal_columns(stream: TextIO) -> int:
    """0 where `stream` is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else 0


def terminal_lines(stream: TextIO) -> int:
    """0 where `stream` is no terminal."""
    return shutil.get_terminal_size().lines if stream.isatty() else 0


def colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Terminals get colours, unless NO_COLOR (https://no-color.org) or a dumb terminal says otherwise."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def paint(text: str, colour: str, enabled: bool) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if enabled and text else text


def write_all(descriptor: int, data: bytes) -> None:
    """What is no text, past Python's own buffers."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def warn(text: str) -> None:
    sys.stdout.flush()
    print(paint(f"warning: {text}", "yellow", colours(sys.stderr)), file=sys.stderr)
