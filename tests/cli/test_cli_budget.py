"""`x-fairway.disruption_budget`, and what of it is refused, by line."""

from __future__ import annotations

import re

import pytest

from cli.commands.show import budget_words
from cli.compose.problems import ComposeRefused
from proto import objects_pb2
from tests.cli.test_cli_placing import parse

Budget = objects_pb2.DisruptionBudget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("max_unavailable: 1", Budget(unavailable_max=1)),
        ("max_unavailable: 0", Budget(unavailable_max=0)),
        ("max_unavailable: 25%", Budget(unavailable_max_millionths=250_000)),
        ("min_available: 2", Budget(available_min=2)),
        ('min_available: "12.5%"', Budget(available_min_millionths=125_000)),
    ],
)
def test_one_bound_is_a_number_or_a_share(text: str, budget: objects_pb2.DisruptionBudget) -> None:
    assert parse(f"x-fairway: {{disruption_budget: {{{text}}}}}").disruption_budget == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "needs either max_unavailable or min_available"),
        ("{max_unavailable: 1, min_available: 1}", "needs either max_unavailable or min_available"),
        ("{max_unavailable: some}", "'some' is neither a number of tasks, at most 10000, nor a share like \"25%\""),
        ("{max_unavailable: -1}", "neither a number"),
        ("{min_available: 120%}", "'120%' is not a share"),
        ("{least: 1}", "least"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(ComposeRefused, match=re.escape(said)):
        parse(f"x-fairway: {{disruption_budget: {text}}}")


def test_show_says_it_as_the_file_does() -> None:
    assert budget_words(Budget(unavailable_max=0)) == "max_unavailable 0"
    assert budget_words(Budget(available_min_millionths=125_000)) == "min_available 12.5%"
    assert budget_words(Budget()) == ""
