"""The files that a project is made of, read and merged into one tree: several that are given, `extends`, `include`.

https://github.com/compose-spec/compose-spec/blob/main/14-include.md
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.compose import document, dotenv
from cli.compose.document import Item, Scalar, Source
from cli.compose.extending import extended
from cli.compose.interpolation import InterpolationError, interpolate
from cli.compose.merge import merged, same, settled
from cli.compose.problems import ComposeRefused, Problem, Problems

STANDARD_INPUT = Path("-")  # in place of a file
FILES_MAX = 200  # that one project is made of
INCLUDES_MAX = 20  # within one another
_IMPORTED = ("services", "networks", "volumes", "configs", "secrets")
_INCLUDE_KEYS = frozenset({"path", "project_directory", "env_file"})


@dataclasses.dataclass(frozen=True)
class FileText:
    """A file that has been read."""

    text: str
    source: Source


def read_text(path: Path) -> str:
    """Raises ComposeRefused where it is too large or not text, OSError where it cannot be read."""
    standard_input = path == STANDARD_INPUT
    data = sys.stdin.buffer.read(document.FILE_BYTES_MAX + 1) if standard_input else path.read_bytes()
    if len(data) > document.FILE_BYTES_MAX:
        problem = Problem(0, "", f"the file is larger than {document.FILE_BYTES_MAX} bytes")
        raise ComposeRefused(called(path), [problem])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ComposeRefused(called(path), [Problem(0, "", f"the file is not UTF-8 text: {error}")]) from error


def called(path: Path) -> str:
    """A file that was given, as messages name it."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def read_variables(paths: Sequence[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, and below it what these files of variables say, the later ones above. Raises ComposeRefused, or
    OSError where one cannot be read."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            found |= dotenv.parse(path.read_text(), {**found, **environment})
        except UnicodeDecodeError as error:
            raise ComposeRefused(str(path), [Problem(0, "", f"the file is not UTF-8 text: {error}")]) from error
        except dotenv.DotenvError as error:
            raise ComposeRefused(str(path), [Problem(error.line, "", str(error))]) from error
    return {**found, **environment}


def beside(folder: Path) -> list[Path]:
    """The file `.env` of a folder, if there is one."""
    path = folder / ".env"
    return [path] if path.is_file() else []


class ProjectFiles:
    """Reads trees; whatever is wrong becomes a problem."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._read = 0

    def tree(
        self, files: Sequence[FileText], variables: Mapping[str, str], trail: tuple[Path, ...] = ()
    ) -> Item | None:
        """One file over the other, nothing left to extend, include or reset. None where nothing can be read.
        `trail`: the files that include these."""
        found: Item | None = None
        for file in files:
            root = self._one(file, variables)
            if root is None:
                continue
            root = self._with_includes(self._extended(root, variables), variables, trail)
            found = settled(root if found is None else merged(found, root, (), self._problems))
        return found

    def _one(self, file: FileText, variables: Mapping[str, str]) -> Item | None:
        self._read += 1
        if self._read > FILES_MAX:
            self._problems.add(1, "", f"the project is made of more than {FILES_MAX} files", file.source.file)
            return None
        problems, source = self._problems, file.source

        def replace(value: str, line: int, path: str) -> str:
            def unset(variable: str) -> None:
                message = f"the variable {variable} is not set; an empty text takes its place"
                problems.warn(line, "", message, source.file)

            try:
                return interpolate(value, variables, unset)
            except InterpolationError as error:
                problems.add(line, path, str(error), source.file)
                return ""

        root = document.parse(file.text, problems, replace, source, merges=True)
        if root is not None and not isinstance(root.value, dict):
            problems.add(root.line, "", "the file must be a mapping of keys to values", source.file)
            return None
        return root

    def _extended(self, root: Item, variables: Mapping[str, str]) -> Item:
        known: dict[Path, Item | None] = {}

        def read(item: Item) -> Item | None:
            text = item.value.text if isinstance(item.value, Scalar) else ""
            if not text:
                self._refuse(item, "extends.file", "must be the path of a file")
                return None
            path = (item.source.folder / text).resolve()
            if path not in known:
                file = self._text(item, "extends.file", path, path.parent)
                known[path] = self._one(file, variables) if file is not None else None
            return known[path]

        return extended(root, self._problems, read)

    def _text(self, item: Item, name: str, path: Path, folder: Path) -> FileText | None:
        try:
            return FileText(read_text(path), Source(_shown(path), folder))
        except ComposeRefused as refused:
            for problem in refused.problems:
                self._problems.add(problem.line, problem.path, problem.message, _shown(path))
        except FileNotFoundError:
            self._refuse(item, name, f"{_shown(path)} does not exist")
        except OSError as error:
            self._refuse(item, name, f"{_shown(path)} cannot be read: {error.strerror or error}")
        return None

    def _with_includes(self, root: Item, variables: Mapping[str, str], trail: tuple[Path, ...]) -> Item:
        assert isinstance(root.value, dict)
        if "include" not in root.value:
            return root
        include = root.value["include"]
        found = {key: item for key, item in root.value.items() if key != "include"}
        if not isinstance(include.value, list):
            self._refuse(include, "include", "must be a list of files")
            return dataclasses.replace(root, value=found)
        for index, each in enumerate(include.value):
            other = self._included(each, f"include[{index}]", variables, trail)
            if other is not None:
                self._import(found, other)
        return dataclasses.replace(root, value=found)

    def _included(self, item: Item, name: str, variables: Mapping[str, str], trail: tuple[Path, ...]) -> Item | None:
        parts = item.value if isinstance(item.value, dict) else {"path": item}
        for key in parts.keys() - _INCLUDE_KEYS:
            if not key.startswith("x-"):
                self._refuse(parts[key], f"{name}.{key}", "is not supported by Fairway")
        paths = [item.source.folder / text for text in self._texts(parts.get("path"), name)]
        if not paths:
            self._refuse(item, name, "names no file")
            return None
        if again := [path for path in paths if path.resolve() in trail]:
            self._refuse(item, name, f"{_shown(again[0])} includes itself")
            return None
        if len(trail) >= INCLUDES_MAX:
            self._refuse(item, name, f"files are included over more than {INCLUDES_MAX} others")
            return None
        own = self._texts(parts.get("project_directory"), f"{name}.project_directory")
        folder = (item.source.folder / own[0] if own else paths[0].parent).resolve()
        named = [item.source.folder / text for text in self._texts(parts.get("env_file"), f"{name}.env_file")]
        try:
            variables = read_variables(named or beside(folder), variables)
        except ComposeRefused as refused:
            for problem in refused.problems:
                self._problems.add(problem.line, "", problem.message, _shown(Path(refused.file)))
        except OSError as error:
            self._refuse(item, f"{name}.env_file", f"{error.filename} cannot be read: {error.strerror or error}")
        files = [file for path in paths if (file := self._text(item, name, path, folder)) is not None]
        return self.tree(files, variables, (*trail, *(path.resolve() for path in paths)))

    def _texts(self, item: Item | None, name: str) -> list[str]:
        if item is None or item.is_null:
            return []
        found = []
        for each in item.value if isinstance(item.value, list) else [item]:
            if isinstance(each.value, Scalar) and each.value.text:
                found.append(each.value.text)
            else:
                self._refuse(each, name, "must be the path of a file")
        return found

    def _import(self, into: dict[str, Item], other: Item) -> None:
        """What an included file defines, beside what is there: neither overrides the other."""
        assert isinstance(other.value, dict)
        for kind in _IMPORTED:
            theirs = other.value.get(kind)
            if theirs is None or not isinstance(theirs.value, dict):
                continue
            present = into.get(kind)
            if present is None or present.is_null:
                into[kind] = theirs
                continue
            if not isinstance(present.value, dict):
                continue  # which is refused when it is read
            both = dict(theirs.value)
            for key, item in present.value.items():
                if key in both and not same(both[key], item):
                    where = f"{both[key].source.file or self._problems.file}:{both[key].line}"
                    message = f"is defined by the included {where} too; neither overrides the other"
                    self._refuse(item, f"{kind}.{key}", message)
                both[key] = item
            into[kind] = dataclasses.replace(present, value=both)

    def _refuse(self, item: Item, path: str, message: str) -> None:
        self._problems.add(item.line, path, message, item.source.file)


def _shown(path: Path) -> str:
    """As people would write it from where they are."""
    resolved = path.resolve()
    try:
        return str(resolved.relative_to(Path.cwd()))
    except ValueError:
        return str(resolved)
