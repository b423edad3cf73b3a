"""Files of NAME=value lines: `.env` beside a Compose file, and what `env_file` names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cli.compose.interpolation import InterpolationError, interpolate

_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=|:(?=[ \t])|$)[ \t]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}


class DotenvError(ValueError):
    """A line cannot be read; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Names to values. A name without "=" takes its value from `environment`, and is left out where that
    has none. Values in single quotes are literal; others may use variables of `environment` and of the
    lines above. Quoted values may span lines. Raises DotenvError."""
    values: dict[str, str] = {}
    position = 0
    if text.startswith("\ufeff"):
        position = 1
    while position < len(text):
        position, name, raw, literal = _entry(text, position)
        if name is None:
            continue
        if raw is None:
            if name in environment:
                values[name] = environment[name]
            continue
        if not literal:
            try:
                raw = interpolate(raw, {**values, **environment})
            except InterpolationError as error:
                raise DotenvError(text.count("\n", 0, position), str(error)) from error
        values[name] = raw
    return values


def parse_raw(text: str) -> dict[str, str]:
    """As `docker run --env-file` reads it: each line as it is, nothing quoted and no variables. Raises DotenvError."""
    values = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.strip() or any(character.isspace() for character in name.strip()):
            raise DotenvError(number, f"{line[:60]!r} is not NAME=value")
        values[name.strip()] = value
    return values


def _entry(text: str, position: int) -> tuple[int, str | None, str | None, bool]:
    """(where the next line starts, name, raw value, literal) of the line at `position`."""
    end = _line_end(text, position)
    line = text[position:end].strip()
    number = text.count("\n", 0, position) + 1
    if not line or line.startswith("#"):
        return end + 1, None, None, False
    indent = len(text[position:end]) - len(text[position:end].lstrip())
    match = _LINE.match(text, position + indent, end)
    if match is None:
        raise DotenvError(number, f"{line[:60]!r} is not NAME=value")
    name, value_at = match.group(1), match.end()
    if match.group(2) == "":
        if value_at < end and text[value_at:end].strip():
            raise DotenvError(number, f"{line[:60]!r} is not NAME=value")
        return end + 1, name, None, False
    quote = text[value_at : value_at + 1]
    if value_at < end and quote in ("'", '"'):
        raw, close = _quoted(text, value_at + 1, quote, number)
        end = _line_end(text, close)
        rest = text[close + 1 : end].strip()
        if rest and not rest.startswith("#"):
            raise DotenvError(number, f"{name}: text follows the closing quote")
        return end + 1, name, raw, quote == "'"
    raw = text[value_at:end]
    raw = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
    return end + 1, name, raw, False


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _quoted(text: str, position: int, quote: str, line: int) -> tuple[str, int]:
    """(value, index of the closing quote)."""
    parts: list[str] = []
    while position < len(text):
        character = text[position]
        if character == quote:
            return "".join(parts), position
        if character == "\\" and quote == '"' and position + 1 < len(text):
            following = text[position + 1]
            # "\$" is a dollar sign for good: it goes through the interpolation as "$$".
            parts.append("$$" if following == "$" else _ESCAPES.get(following, "\\" + following))
            position += 2
            continue
        parts.append(character)
        position += 1
    raise DotenvError(line, f"the quote {quote} is never closed")
