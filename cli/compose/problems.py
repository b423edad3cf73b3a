"""What is wrong with a Compose file: collected, sorted by line, and reported all at once."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEMS_SHOWN_MAX = 50
# A message that begins with one of these goes on from the path as a sentence.
_VERBS = frozenset(
    [
        "is",
        "has",
        "must",
        "needs",
        "takes",
        "mounts",
        "publishes",
        "reserves",
        "belongs",
        "names",
        "depends",
        "uses",
        "waits",
    ]
)


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; `path` is like "services.web.ports[0]"; `file`: the one that
    it is in, where that is not the one that was asked for."""

    line: int
    path: str
    message: str
    file: str = ""


class ComposeRefused(Exception):
    """The file cannot be deployed; `problems` says everything that is wrong with it."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = sorted(set(problems), key=lambda problem: (problem.file, problem))
        shown = [render(file, problem) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        hidden = len(self.problems) - len(shown)
        if hidden > 0:
            shown.append(f"... and {hidden} more")
        super().__init__("\n".join(shown))


class Problems:
    """Collects the problems and the warnings of one file, and of those that it is made of."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []
        self.warnings: list[str] = []

    def add(self, line: int, path: str, message: str, file: str = "") -> None:
        self.found.append(Problem(line, path, message, "" if file == self.file else file))

    def warn(self, line: int, path: str, message: str, file: str = "") -> None:
        text = render(self.file, Problem(line, path, message, file))
        if text not in self.warnings:
            self.warnings.append(text)

    def raise_any(self) -> None:
        """Raises ComposeRefused where anything was found."""
        if self.found:
            raise ComposeRefused(self.file, self.found)


def render(file: str, problem: Problem) -> str:
    """ "compose.yaml:14: services.web.blkio_config is not supported by Fairway" """
    separator = " " if problem.message.split(" ", 1)[0] in _VERBS else ": "
    subject = f"{problem.path}{separator}" if problem.path else ""
    file = problem.file or file
    where = f"{file}:{problem.line}" if problem.line else file
    return f"{where}: {subject}{problem.message}"
