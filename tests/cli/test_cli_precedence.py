"""`x-fairway.priority`, `preempt` and `group`, and what of them is refused, by line."""

from __future__ import annotations

import re

import pytest

from cli.commands.show import precedence_words
from cli.compose.problems import ComposeRefused
from proto import objects_pb2
from tests.cli.test_cli_placing import parse


def test_what_they_say_and_that_saying_the_usual_says_nothing() -> None:
    spec = parse("x-fairway: {priority: -10, preempt: false, group: ring}")
    assert spec.precedence == objects_pb2.Precedence(priority=-10, never_preempts=True, group="ring")
    assert not parse("x-fairway: {priority: 0, preempt: true}").HasField("precedence")


def test_show_says_what_is_not_the_usual() -> None:
    assert precedence_words(objects_pb2.Precedence()) == ""
    said = objects_pb2.Precedence(priority=5, never_preempts=True, group="ring")
    assert precedence_words(said) == "5, stops no others, group ring"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("priority: 1001", "1001 is not between -1000 and 1000"),
        ("priority: high", "'high' is not a whole number"),
        ("preempt: some", "preempt"),
        ("group: a b", "'a b' cannot be a group's name"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(ComposeRefused, match=re.escape(said)):
        parse(f"x-fairway: {{{text}}}")
