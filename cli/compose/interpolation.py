"""Variables in Compose values: $NAME, ${NAME}, ${NAME:-default} and the other forms of the Compose
specification (https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
NESTING_MAX = 20
RESULT_CHARACTERS_MAX = 1 << 20


class InterpolationError(ValueError):
    """The value cannot be interpolated; the text says why and what to write instead."""


def interpolate(text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda name: None) -> str:
    """`text` with its variables replaced. `unset` is called with each name that has neither a value nor
    a default. Raises InterpolationError for a form that Compose does not know or a required variable
    that is missing."""
    if "$" not in text:
        return text
    result, position = _Scanner(text, variables, unset).run(0, 0, stop_at_brace=False)
    assert position == len(text)
    return result


class _Scanner:
    def __init__(self, text: str, variables: Mapping[str, str], unset: Callable[[str], None]) -> None:
        self._text = text
        self._variables = variables
        self._unset = unset

    def run(self, position: int, depth: int, *, stop_at_brace: bool, live: bool = True) -> tuple[str, int]:
        """Replaces up to the end, or to the brace that closes. `live` is false in a branch that is not
        taken: there, nothing is required and nothing is missed."""
        if depth > NESTING_MAX:
            raise InterpolationError(f"variables are nested deeper than {NESTING_MAX}")
        text, length = self._text, 0
        parts: list[str] = []
        while position < len(text):
            character = text[position]
            if stop_at_brace and character == "}":
                return "".join(parts), position
            if character == "$":
                piece, position = self._variable(position, depth, live)
            else:
                piece, position = character, position + 1
            parts.append(piece)
            length += len(piece)
            if length > RESULT_CHARACTERS_MAX:
                raise InterpolationError(f"the value grows beyond {RESULT_CHARACTERS_MAX} characters")
        if stop_at_brace:
            raise InterpolationError(f"{text!r}: '${{' has no closing '}}'")
        return "".join(parts), position

    def _variable(self, position: int, depth: int, live: bool) -> tuple[str, int]:
        text = self._text
        following = text[position + 1 : position + 2]
        if following == "$":
            return "$", position + 2
        if following == "{":
            return self._braced(position + 2, depth, live)
        match = _NAME.match(text, position + 1)
        if match is None:
            raise InterpolationError(f"{text!r}: '$' starts no variable; write '$$' for a dollar sign")
        return self._value(match.group(), live), match.end()

    def _braced(self, position: int, depth: int, live: bool) -> tuple[str, int]:
        text = self._text
        match = _NAME.match(text, position)
        if match is None:
            raise InterpolationError(f"{text!r}: '${{' needs the name of a variable")
        name, position = match.group(), match.end()
        if text[position : position + 1] == "}":
            return self._value(name, live), position + 1
        operator = next((each for each in _OPERATORS if text.startswith(each, position)), None)
        if operator is None:
            raise InterpolationError(f"{text!r}: after ${{{name} comes '}}' or one of {' '.join(_OPERATORS)}")
        value = self._variables.get(name)
        present = value is not None and (value != "" or not operator.startswith(":"))
        kind = operator[-1]
        taken = present if kind == "+" else not present
        word, position = self.run(position + len(operator), depth + 1, stop_at_brace=True, live=live and taken)
        position += 1
        if kind == "+":
            return (word if present else ""), position
        if present:
            return value or "", position
        if kind == "?" and live:
            raise InterpolationError(f"the variable {name} is required{': ' + word if word else ''}")
        return word, position

    def _value(self, name: str, live: bool) -> str:
        value = self._variables.get(name)
        if value is None:
            if live:
                self._unset(name)
            return ""
        return value
