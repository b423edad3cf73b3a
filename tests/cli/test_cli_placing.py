"""Preferences, bounds and affinities of a Compose file: what they become, and how they are refused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import objects_pb2


def parse(lines: str) -> objects_pb2.ServiceSpec:
    text = "services:\n  web:\n    image: web:1\n" + textwrap.indent(textwrap.dedent(lines), "    ")
    text += "\n  db: {image: db}\n"
    return project.parse(text, "compose.yaml", Path("/x/shop"), {}).spec.services["web"]


def test_preferences_and_bounds_as_in_swarm() -> None:
    spec = parse(
        """
        deploy:
          placement:
            constraints: [node.labels.disk == ssd]
            preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}]
            max_replicas_per_node: 2
        """
    )
    assert list(spec.constraints) == ["node.labels.disk == ssd"]
    assert list(spec.placement.spread_over) == ["node.labels.zone", "node.labels.rack"]
    assert spec.placement.per_node_max == 2
    assert not parse("deploy: {placement: {max_replicas_per_node: 0}}").HasField("placement")


def test_affinities_and_strategy() -> None:
    placement = parse(
        """
        x-fairway:
          placement:
            strategy: pack
            affinity:
              - {service: db, same: node.labels.zone, required: true}
              - {constraint: node.labels.disk==ssd, weight: 10}
            anti_affinity:
              - {service: web, same: host}
        """
    ).placement
    assert placement.pack
    near, disk, apart = placement.affinities
    assert (near.service, near.same, near.required, near.anti) == ("db", "node.labels.zone", True, False)
    assert (disk.constraint, disk.weight, disk.required) == ("node.labels.disk == ssd", 10, False)
    assert (apart.service, apart.same, apart.anti) == ("web", "", True)
    assert not parse("x-fairway: {placement: {strategy: spread}}").HasField("placement")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("deploy: {placement: {preferences: [{spread: zone}]}}", "'zone' is not a property of hosts"),
        ("deploy: {placement: {preferences: [{binpack: x}]}}", "binpack"),
        ("deploy: {placement: {max_replicas_per_node: -1}}", "max_replicas_per_node"),
        ("x-fairway: {placement: {strategy: tight}}", "tight"),
        ("x-fairway: {placement: {affinity: [{same: host}]}}", "neither service nor constraint"),
        ("x-fairway: {placement: {affinity: [{constraint: node.id == x, required: true}]}}", "use deploy.placement"),
        ("x-fairway: {placement: {affinity: [{service: db, weight: 2, required: true}]}}", "has no effect"),
        ("x-fairway: {placement: {affinity: [{constraint: node.id == x, same: host}]}}", "goes with service"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_key_and_line(lines: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        parse(lines)
    problems = str(refused.value).splitlines()
    assert all(problem.startswith("compose.yaml:4") for problem in problems)
    assert any(words in problem for problem in problems)
