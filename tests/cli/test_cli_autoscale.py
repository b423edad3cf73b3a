"""`x-fairway.autoscale` of a Compose file, and how it is told: what it becomes, and how it is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from cli.scaling_words import scaling_row
from proto import objects_pb2


def parse(lines: str) -> objects_pb2.ServiceSpec:
    text = "services:\n  web:\n    image: web:1\n" + textwrap.indent(textwrap.dedent(lines), "    ")
    return project.parse(text, "compose.yaml", Path("/x/shop"), {}).spec.services["web"]


def test_all_that_it_may_say() -> None:
    spec = parse(
        """
        deploy: {resources: {reservations: {cpus: "0.5"}, limits: {memory: 256M}}}
        x-fairway:
          autoscale:
            min: 2
            max: 10
            cpu: 70%
            memory: 80
            connections: 100
            metric: {port: 9100, path: /stats, name: jobs_total, labels: {queue: mail}, target: 2.5, per_second: true}
            stabilisation: 2m
            up_stabilisation: 10s
        """
    )
    metric = objects_pb2.ScrapedMetric(
        port=9100, path="/stats", name="jobs_total", labels={"queue": "mail"}, target_thousandths=2_500, per_second=True
    )
    assert spec.autoscale == objects_pb2.Autoscale(
        replicas_min=2,
        replicas_max=10,
        cpu_percent=70,
        memory_percent=80,
        connections=100,
        metric=metric,
        stabilisation_ms=120_000,
        up_stabilisation_ms=10_000,
    )
    assert spec.replicas == 0  # what there is, or the least


def test_a_number_that_is_said_is_where_it_begins() -> None:
    text = "deploy: {replicas: %s}\nx-fairway: {autoscale: {max: 4, connections: 5}}"
    assert parse(text % 3).replicas == 3
    assert parse("scale: 2\nx-fairway: {autoscale: {max: 4, connections: 5}}").replicas == 2
    with pytest.raises(ComposeRefused, match="allows 1 to 4 tasks, and replicas is 5"):
        parse(text % 5)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ("{connections: 5}", "has no max"),
        ("{max: 3}", "does not say by what"),
        ("{min: 4, max: 3, connections: 5}", "is less than min, 4"),
        ("{min: 0, max: 3, connections: 5}", "0 is not between 1 and"),
        ("{max: 3, requests: 5}", "per_second: true"),
        ("{max: 3, cpu: 70%}", "cpu is a share of what deploy.resources reserves"),
        ("{max: 3, memory: 70%}", "memory is a share of what deploy.resources reserves"),
        ("{max: 3, cpu: much}", "is not a share between"),
        ("{max: 3, metric: {port: 80}}", "metric has no name"),
        ("{max: 3, metric: {port: 80, name: 'x{a=b}', target: 1}}", "labels go under labels"),
        ("{max: 3, metric: {port: 80, name: x, target: 0}}", "is not a number between 0.001"),
        ("{max: 3, connections: 5, stabilisation: 0s}", "must be at least 1 ms"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_line(scale: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        parse(f"x-fairway: {{autoscale: {scale}}}")
    assert words in str(refused.value) and "compose.yaml:4" in str(refused.value)


def test_only_replicated_services_are_scaled() -> None:
    with pytest.raises(ComposeRefused, match="is for replicated services"):
        parse("deploy: {mode: global}\nx-fairway: {autoscale: {max: 3, connections: 5}}")


def test_it_is_told_in_words() -> None:
    service = objects_pb2.Service()
    service.spec.replicas = 3
    assert scaling_row(service, 0) == ""
    service.spec.autoscale.CopyFrom(objects_pb2.Autoscale(replicas_min=2, replicas_max=9, connections=5))
    assert scaling_row(service, 0) == "3 tasks of 2 to 9 by load; nothing is known of it yet"
    found = service.autoscaling
    found.state, found.message, found.looked_unix_ms = objects_pb2.Autoscaling.STATE_AT_MAX, "much to do", 95_000
    found.replicas_before, found.replicas_after = 2, 3
    found.changed_unix_ms, found.changed_message = 40_000, "more to do"
    assert scaling_row(service, 100_000) == (
        "3 tasks of 2 to 9 by load; at-max, as of 5s ago: much to do; changed from 2 to 3 1m ago: more to do"
    )
