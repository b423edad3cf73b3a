"""`x-fairway.rollout.check` of a Compose file: what it becomes, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import objects_pb2

TEXT = """services:
  web:
    image: web:1
    x-fairway:
      rollout:
        %s
        check: %s
"""


def parse(
    check: str, strategy: str = "strategy: canary\n        steps: [{share: 10%, wait: 1m}]"
) -> objects_pb2.RolloutCheck:
    text = TEXT.replace("%s", strategy, 1).replace("%s", check)
    return project.parse(text, "compose.yaml", Path("/x/shop"), {}).spec.services["web"].rollout.check


def test_a_share_and_a_number() -> None:
    found = parse("{port: 9100, path: /stats, name: errors, labels: {a: b}, of: requests, max: 1.5%, per_second: true}")
    metric = objects_pb2.ScrapedMetric(port=9100, path="/stats", name="errors", labels={"a": "b"}, per_second=True)
    of = objects_pb2.ScrapedMetric(port=9100, path="/stats", name="requests", per_second=True)
    assert found == objects_pb2.RolloutCheck(metric=metric, of=of, max_millionths=15_000)
    assert parse("{port: 1, name: x, of: {name: y, labels: {c: d}}, max: 0%}").of.labels["c"] == "d"
    number = parse("{port: 1, name: x, max: 2.5}")
    assert number.max_millionths == 2_500_000 and not number.HasField("of")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("{port: 1, name: x}", "check has no max"),
        ("{name: x, max: 1}", "check has no port"),
        ("{port: 1, max: 1}", "check has no name"),
        ("{port: 1, name: x, max: 1%}", "a share needs `of`"),
        ("{port: 1, name: x, of: y, max: 1}", "is not a share of `of`"),
        ("{port: 1, name: x, of: {labels: {a: b}}, max: 1%}", "of has no name"),
        ("{port: 1, name: x, min: 1, max: 2}", "say a metric of what is wrong"),
        ("{port: 1, name: 'a b', max: 2}", "is not the name of a metric"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_line(check: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        parse(check)
    assert words in str(refused.value) and "compose.yaml:8" in str(refused.value)


def test_only_a_canary_is_checked() -> None:
    with pytest.raises(ComposeRefused, match="with strategy: canary only"):
        parse("{port: 1, name: x, max: 1}", "strategy: rolling")
