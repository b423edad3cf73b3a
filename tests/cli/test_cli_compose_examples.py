"""Every form that the Compose Specification documents: short files that are read, or refused where they say.

A file in compose_examples/ says in comments what is to come of it: `# refused LINE: PATH | WORDS` for each problem,
`# warns: WORDS`; without them it is read without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused

FILES = sorted((Path(__file__).parent / "compose_examples").glob("*.yaml"))
REFUSED = re.compile(r"^# refused (\d+): (\S+) \| (.+)$", re.MULTILINE)
WARNS = re.compile(r"^# warns: (.+)$", re.MULTILINE)
FILES_READ = [path for path in FILES if not REFUSED.search(path.read_text())]
VARIABLES = {"SET": "set", "EMPTY": "", "FROM_OUTSIDE": "outside"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_documented_form(path: Path) -> None:
    text = path.read_text()
    expected = REFUSED.findall(text)
    if not expected:
        read = project.load([path], VARIABLES, project.Choices("app"))
        warnings = [each for each in read.warnings if "is obsolete" not in each]
        assert [words for words in WARNS.findall(text) if words not in "".join(warnings)] == []
        assert len(warnings) == len(WARNS.findall(text)), warnings
        return
    with pytest.raises(ComposeRefused) as refused:
        project.load([path], VARIABLES, project.Choices("app"))
    found = [(str(problem.line), problem.path, problem.message) for problem in refused.value.problems]
    assert sorted((line, where) for line, where, _ in found) == sorted((line, where) for line, where, _ in expected)
    for line, where, words in expected:
        assert any((line, where) == each[:2] and words in each[2] for each in found), (line, where, found)


def test_what_the_forms_become() -> None:
    """A few of them, looked at more closely: that they are read is not that they are understood."""
    read = {path.stem: project.load([path], VARIABLES, project.Choices("app", ("test",))).spec for path in FILES_READ}
    environment = read["environment_forms"].services
    assert dict(environment["mapping"].container.environment) == {
        "RACK_ENV": "development",
        "SHOW": "true",
        "COUNT": "7",
        "FROM_OUTSIDE": "outside",
    }
    interpolated = read["interpolation_forms"].services["web"].container
    assert dict(interpolated.environment) == {
        "A": "set",
        "B": "default",
        "C": "default",
        "D": "replacement",
        "E": "inner",
    }
    assert list(interpolated.command.values) == ["$VAR_NOT_INTERPOLATED_BY_COMPOSE"]
    assert list(read["fragments_extensions"].services["first"].container.environment) == ["EXAMPLE_KEY"]
    assert sorted(read["profiles"].services) == ["coverage_lib", "debug_lib", "test_lib", "web"]
    assert [port.published for port in read["extends_same_file"].services["web"].ports] == [8081]


@pytest.mark.parametrize("path", FILES_READ, ids=lambda path: path.stem)
def test_a_file_over_itself_says_what_it_says_alone(path: Path) -> None:
    alone, twice = (project.load(paths, VARIABLES, project.Choices("app")).spec for paths in ([path], [path, path]))
    for spec in twice.services.values():
        # Lists of mappings have nothing to tell two of their elements apart by, so both are kept, as in Compose.
        if spec.HasField("placement"):
            del spec.placement.spread_over[len(spec.placement.spread_over) // 2 :]
        for hooks in (spec.container.post_start, spec.container.pre_stop):
            del hooks[len(hooks) // 2 :]
    assert twice == alone
