"""Reads typed values out of `Item`s; what does not fit becomes a problem and a harmless default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cli.compose import values
from cli.compose.document import Item, Scalar
from cli.compose.problems import Problems

T = TypeVar("T")

_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


@dataclass(frozen=True, slots=True)
class Field:
    """An item and the path that names it in messages."""

    item: Item
    path: str

    @property
    def line(self) -> int:
        return self.item.line

    @property
    def is_null(self) -> bool:
        return self.item.is_null

    @property
    def is_list(self) -> bool:
        return isinstance(self.item.value, list)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.item.value, dict)

    @property
    def is_text(self) -> bool:
        return isinstance(self.item.value, Scalar)


class Reader:
    """Typed reads; every refusal names file, line and path."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def refuse(self, field: Field, message: str) -> None:
        self.problems.add(field.line, field.path, message, field.item.source.file)

    def warn(self, field: Field, message: str) -> None:
        self.problems.warn(field.line, field.path, message, field.item.source.file)

    def unsupported(self, field: Field, why: str = "") -> None:
        self.refuse(field, "is not supported by Fairway" + (f" ({why})" if why else ""))

    def entries(self, field: Field) -> dict[str, Field]:
        """The mapping's values by key; empty for null."""
        if field.is_null:
            return {}
        if not isinstance(field.item.value, dict):
            self.refuse(field, "must be a mapping of keys to values")
            return {}
        before = f"{field.path}." if field.path else ""
        return {key: Field(item, f"{before}{key}") for key, item in field.item.value.items()}

    def known_entries(
        self, field: Field, known: frozenset[str], hints: Mapping[str, str] | None = None
    ) -> dict[str, Field]:
        """Like `entries`; keys that are not in `known` are refused, except those that begin with x-."""
        found = {}
        for key, below in self.entries(field).items():
            if key in known:
                found[key] = below
            elif not key.startswith("x-"):
                self.unsupported(below, (hints or {}).get(key, ""))
        return found

    def elements(self, field: Field) -> list[Field]:
        """The list's elements; empty for null."""
        if field.is_null:
            return []
        if not isinstance(field.item.value, list):
            self.refuse(field, "must be a list")
            return []
        return [Field(item, f"{field.path}[{index}]") for index, item in enumerate(field.item.value)]

    def text(self, field: Field, *, empty: bool = False) -> str:
        """One value as text; a problem where it is a list, a mapping, null, or empty without `empty`."""
        value = field.item.value
        if not isinstance(value, Scalar):
            self.refuse(field, "must be one value, not a list or a mapping")
            return ""
        if not value.text.strip() or value.kind == "null":
            if not empty:
                self.refuse(field, "has no value")
            return "" if value.kind == "null" else value.text
        return value.text

    def parsed(self, field: Field, parse: Callable[[str], T], otherwise: T) -> T:
        """`parse` of the text; its ValueError is the problem's text."""
        count = len(self.problems.found)
        text = self.text(field)
        if len(self.problems.found) != count:
            return otherwise
        try:
            return parse(text)
        except ValueError as error:
            self.refuse(field, str(error))
            return otherwise

    def choice(self, field: Field, choices: Mapping[str, T], otherwise: T) -> T:
        """What the text, a word of `choices`, stands for."""

        def parse(text: str) -> T:
            if text not in choices:
                *others, last = choices
                words = f"neither {others[0]} nor {last}" if len(others) == 1 else f"not one of {', '.join(choices)}"
                raise ValueError(f"{text!r} is {words}")
            return choices[text]

        return self.parsed(field, parse, otherwise)

    def integer(self, field: Field, low: int, high: int, *, base: int = 10, otherwise: int = 0) -> int:
        def parse(text: str) -> int:
            try:
                number = int(text.strip(), base)
            except ValueError:
                raise ValueError(f"{text!r} is not a whole number") from None
            if not low <= number <= high:
                raise ValueError(f"{text} is not between {low} and {high}")
            return number

        return self.parsed(field, parse, otherwise)

    def boolean(self, field: Field) -> bool:
        def parse(text: str) -> bool:
            lowered = text.strip().lower()
            if lowered in _TRUE:
                return True
            if lowered in _FALSE:
                return False
            raise ValueError(f"{text!r} is neither true nor false")

        return self.parsed(field, parse, False)

    def duration_ms(self, field: Field, *, low: int = 0) -> int:
        found = self.parsed(field, values.duration_ms, low)
        if found < low:
            self.refuse(field, f"must be at least {low} ms")
        return found

    def size_bytes(self, field: Field, *, low: int = 0) -> int:
        found = self.parsed(field, values.size_bytes, low)
        if found < low:
            self.refuse(field, f"must be at least {low} bytes")
        return found

    def texts(self, field: Field, *, single: bool = False) -> list[tuple[Field, str]]:
        """A list of texts; with `single`, one text is a list of one."""
        if single and field.is_text and not field.is_null:
            return [(field, self.text(field))]
        return [(each, self.text(each)) for each in self.elements(field)]

    def pairs(self, field: Field) -> Iterator[tuple[Field, str, str | None]]:
        """(where, name, value) of a mapping or of a list of "name=value"; None where there is no value."""
        if field.is_list:
            for each in self.elements(field):
                name, equals, value = self.text(each).partition("=")
                yield each, name, value if equals else None
            return
        for name, below in self.entries(field).items():
            yield below, name, None if below.is_null else self.text(below, empty=True)

    def labels(self, field: Field) -> dict[str, str]:
        found = {}
        for below, name, value in self.pairs(field):
            if not name:
                self.refuse(below, "has a label without a name")
            else:
                found[name] = value or ""
        return found
