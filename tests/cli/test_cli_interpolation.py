"""Interpolation: the forms of the specification by table, and what holds of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.compose import dotenv
from cli.compose.interpolation import InterpolationError, interpolate

VARIABLES = {"A": "a", "E": "", "LONG_1": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A-$LONG_1.", "a-x."),
        ("${A}b", "ab"),
        ("$$A $${A}", "$A ${A}"),
        ("${U:-d}${E:-d}${A:-d}", "dda"),
        ("${U-d}${E-d}", "d"),
        ("${A:?no}${E?no}", "a"),
        ("${A:+r}${E:+r}${U:+r}", "r"),
        ("${E+r}${U+r}", "r"),
        ("${U:-${E:-deep}}", "deep"),
        ("${U:-a$A}", "aa"),
        ("${A:-${U:?never asked}}", "a"),
        ("${U}", ""),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES) == expected


@pytest.mark.parametrize("text", ["$", "$1", "${", "${A", "${A:", "${}", "${1}", "${A*b}", "${E:?why}", "${U?why}"])
def test_refused(text: str) -> None:
    with pytest.raises(InterpolationError):
        interpolate(text, VARIABLES)


@given(st.text())
def test_doubled_dollars_keep_any_text(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet="a${}:-?+A", max_size=40))
def test_any_text_gives_a_text_or_one_kind_of_error(text: str) -> None:
    try:
        interpolate(text, {"A": "v", "a": "w"})
    except InterpolationError:
        return


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), st.text())
def test_values_are_never_interpolated_again(name: str, value: str) -> None:
    assert interpolate(f"<${{{name}}}>", {name: value}) == f"<{value}>"


def test_names_without_value_or_default_are_told() -> None:
    missed: list[str] = []
    interpolate("$U ${V} ${W:-x} ${A:+y}", VARIABLES, missed.append)
    assert missed == ["U", "V"]


@pytest.mark.parametrize("text", ["A", "1=a", "a b=c", "A='x", 'A="x" y'])
def test_dotenv_lines_that_are_wrong(text: str) -> None:
    if text == "A":
        assert dotenv.parse(text, {}) == {}
        return
    with pytest.raises(dotenv.DotenvError):
        dotenv.parse(text, {})


@given(st.text(alphabet="ab =\"'#\n$\\", max_size=60))
def test_any_dotenv_gives_values_or_one_kind_of_error(text: str) -> None:
    try:
        dotenv.parse(text, {})
    except dotenv.DotenvError:
        return


def test_a_raw_file_is_taken_as_it_is() -> None:
    text = "# note\n\nA='quoted' # kept\nB=$HOME=x\n C=\n"
    assert dotenv.parse_raw(text) == {"A": "'quoted' # kept", "B": "$HOME=x", "C": ""}
    with pytest.raises(dotenv.DotenvError, match="is not NAME=value") as refused:
        dotenv.parse_raw("A=1\nB\n")
    assert refused.value.line == 2
