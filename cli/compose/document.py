"""YAML text to a tree of `Item`s that know their lines; anchors, aliases and merge keys are resolved.

Scalars stay as their text: Compose interpolates first and casts after, so the type of a value is decided
by the key that takes it (`reader.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cli.compose.problems import Problems

FILE_BYTES_MAX = 1 << 20
ITEMS_MAX = 50_000  # after aliases are expanded: a few lines of YAML can name a billion items
DEPTH_MAX = 40
_STANDARD_TAG = "tag:yaml.org,2002:"
_SCALAR_KINDS = frozenset({"str", "int", "float", "bool", "null", "timestamp"})
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# What a file may say of a value that an earlier one gave
# (https://github.com/compose-spec/compose-spec/blob/main/13-merge.md).
RESET = "!reset"
OVERRIDE = "!override"

# (text, line, path) -> text; `Problems` are added by the interpolation itself.
Interpolate = Callable[[str, int, str], str]


@dataclass(frozen=True, slots=True)
class Source:
    """A file as messages name it ("": the one that `Problems` is about), and where its relative paths begin."""

    file: str = ""
    folder: Path = Path()


ALONE = Source()


@dataclass(frozen=True, slots=True)
class Scalar:
    """`kind` is YAML's own idea: "str", "int", "float", "bool" or "null"."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Item:
    """A value and the line (from 1) of its key, or of itself in a list; `tag`: RESET, OVERRIDE or nothing."""

    line: int
    value: Scalar | list[Item] | dict[str, Item]
    source: Source = ALONE
    tag: str = ""

    @property
    def is_null(self) -> bool:
        return isinstance(self.value, Scalar) and self.value.kind == "null"


def parse(
    text: str, problems: Problems, interpolate: Interpolate, source: Source = ALONE, *, merges: bool = False
) -> Item | None:
    """The document's tree; None where it is empty or cannot be read (then a problem says why). `merges`: the tags
    that say how it is merged with other files are allowed."""
    file = source.file
    if len(text.encode()) > FILE_BYTES_MAX:
        problems.add(1, "", f"the file is larger than {FILE_BYTES_MAX} bytes", file)
        return None
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        problems.add(mark.line + 1 if mark else 1, "", f"this is not valid YAML: {reason}", file)
        return None
    except RecursionError:
        problems.add(1, "", "the YAML is nested too deeply", file)
        return None
    except ValueError as error:  # characters that YAML does not allow
        problems.add(1, "", f"this is not valid YAML: {error}", file)
        return None
    if root is None:
        return None
    try:
        return _Builder(problems, interpolate, source, merges).build(root, root.start_mark.line + 1, "")
    except _TooLarge as error:
        problems.add(error.line, "", str(error), file)
        return None


class _TooLarge(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Builder:
    def __init__(self, problems: Problems, interpolate: Interpolate, source: Source, merges: bool) -> None:
        self._problems = problems
        self._interpolate = interpolate
        self._source = source
        self._tags = frozenset({RESET, OVERRIDE}) if merges else frozenset()
        self._items = 0
        self._open: list[int] = []  # ids of the nodes being built: an alias to one of them is a loop

    def build(self, node: Node, line: int, path: str) -> Item:
        self._items += 1
        if self._items > ITEMS_MAX:
            raise _TooLarge(line, f"the aliases of this file expand to more than {ITEMS_MAX} items")
        if id(node) in self._open:
            raise _TooLarge(line, "an alias refers to something that contains it")
        if len(self._open) >= DEPTH_MAX:
            raise _TooLarge(line, f"nested deeper than {DEPTH_MAX} levels")
        self._open.append(id(node))
        try:
            tag = str(node.tag or "") if str(node.tag or "") in self._tags else ""
            if tag == RESET:
                return Item(line, Scalar("", "null"), self._source, tag)
            if isinstance(node, ScalarNode):
                return Item(line, self._scalar(node, line, path, tag), self._source, tag)
            if not tag:
                self._check_tag(node, ("map", "seq"), line, path)
            if isinstance(node, SequenceNode):
                return Item(line, self._sequence(node, path), self._source, tag)
            assert isinstance(node, MappingNode)
            return Item(line, self._mapping(node, path), self._source, tag)
        finally:
            self._open.pop()

    def _check_tag(self, node: Node, allowed: tuple[str, ...] | frozenset[str], line: int, path: str) -> str:
        tag = str(node.tag or "")
        kind = tag.removeprefix(_STANDARD_TAG)
        if kind not in allowed:
            self._add(line, path, f"the YAML tag {tag.removeprefix(_STANDARD_TAG)} is not supported")
            return "str"
        return kind

    def _add(self, line: int, path: str, message: str) -> None:
        self._problems.add(line, path, message, self._source.file)

    def _scalar(self, node: ScalarNode, line: int, path: str, tag: str) -> Scalar:
        if tag:  # it stands where YAML's own idea of the kind would
            kind = "null" if node.style is None and node.value in _NULLS else "str"
        else:
            kind = self._check_tag(node, _SCALAR_KINDS, line, path)
        if kind == "timestamp":
            kind = "str"
        text = self._interpolate(str(node.value), line, path)
        return Scalar(text, kind)

    def _sequence(self, node: SequenceNode, path: str) -> list[Item]:
        return [
            self.build(child, child.start_mark.line + 1, f"{path}[{index}]") for index, child in enumerate(node.value)
        ]

    def _mapping(self, node: MappingNode, path: str) -> dict[str, Item]:
        own: dict[str, Item] = {}
        merged: dict[str, Item] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._add(line, path, "a key must be plain text")
                continue
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                self._merge(value_node, line, path, merged)
                continue
            below = f"{path}.{key}" if path else key
            if key in own:
                self._add(line, below, f"is written twice; the first is on line {own[key].line}")
                continue
            own[key] = self.build(value_node, line, below)
        return {**merged, **own}

    def _merge(self, node: Node, line: int, path: str, merged: dict[str, Item]) -> None:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, MappingNode):
                self._add(line, path, "'<<' takes a mapping or a list of mappings")
                continue
            built = self.build(source, line, path).value
            assert isinstance(built, dict)
            for key, item in built.items():
                merged.setdefault(key, item)
