"""`x-fairway.probes` of a Compose file: what they become, and how they are refused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from cli.compose import project
from cli.compose.problems import ComposeRefused
from proto import objects_pb2


def parse(lines: str) -> objects_pb2.ServiceSpec:
    text = "services:\n  web:\n    image: web:1\n" + textwrap.indent(textwrap.dedent(lines), "    ")
    return project.parse(text, "compose.yaml", Path("/x/shop"), {}).spec.services["web"]


def test_each_kind_and_way() -> None:
    probes = parse(
        """
        x-fairway:
          probes:
            start: {exec: [check, --all], interval: 500ms, failures: 20}
            live: {grpc: {port: 9000, service: shop.Cart}, timeout: 1s}
            ready:
              http: {port: 8080, path: "/ok?deep=1", headers: {Host: shop.example}, expect: 200-299, scheme: https}
              successes: 2
        """
    ).container.probes
    assert probes.start == objects_pb2.Probe(exec=["check", "--all"], interval_ms=500, failures=20)
    assert probes.live == objects_pb2.Probe(
        grpc=objects_pb2.GrpcProbe(port=9000, service="shop.Cart"), timeout_ms=1_000
    )
    http = objects_pb2.HttpProbe(port=8080, path="/ok?deep=1", status_min=200, status_max=299, tls=True)
    http.headers.add(name="Host", value="shop.example")
    assert probes.ready == objects_pb2.Probe(http=http, successes=2)
    line = parse("x-fairway: {probes: {live: {exec: 'test -e /alive'}}}").container.probes.live.exec
    assert list(line) == ["/bin/sh", "-c", "test -e /alive"]
    one = parse("x-fairway: {probes: {ready: {http: {port: 80, expect: 204}}}}").container.probes.ready.http
    assert (one.status_min, one.status_max) == (204, 204)
    assert not parse("x-fairway: {}").container.HasField("probes")


@pytest.mark.parametrize(
    ("probes", "words"),
    [
        ("{readiness: {tcp: {port: 80}}}", "readiness is not supported by Fairway (say ready)"),
        ("{ready: {}}", "ready needs exactly one of http, tcp, grpc, exec"),
        ("{ready: {tcp: {port: 80}, exec: [x]}}", "needs exactly one of"),
        ("{ready: {tcp: {}}}", "ready.tcp has no port"),
        ("{ready: {tcp: {port: 70000}}}", "70000 is not between 1 and 65535"),
        ("{ready: {http: {port: 80, path: healthz}}}", "must begin with /"),
        ("{ready: {http: {port: 80, expect: 399-200}}}", "is no status and no range"),
        ("{ready: {http: {port: 80, expect: ok}}}", "is no status and no range"),
        ("{ready: {http: {port: 80, headers: {'a b': x}}}}", "is not a header"),
        ("{ready: {tcp: {port: 80}, retries: 3}}", "say failures"),
        ("{ready: {tcp: {port: 80}, interval: 1ms}}", "must be at least 100 ms"),
        ("{live: {tcp: {port: 80}, successes: 2}}", "is 1 of a live probe"),
        ("{live: {exec: []}}", "has no command"),
        ("{}", "has none of start, live, ready"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_line(probes: str, words: str) -> None:
    with pytest.raises(ComposeRefused) as refused:
        parse(f"x-fairway: {{probes: {probes}}}")
    assert words in str(refused.value) and "compose.yaml:4" in str(refused.value)


def test_a_later_file_changes_a_probe(tmp_path: Path) -> None:
    text = "services: {web: {image: web, x-fairway: {probes: {live: %s, ready: %s}}}}"
    (tmp_path / "1.yaml").write_text(text % ("{exec: [a, b]}", "{http: {port: 80, headers: [A=1, B=2]}, interval: 2s}"))
    (tmp_path / "2.yaml").write_text(text % ("{exec: [c]}", "{http: {headers: {A: 3}}}"))
    choices = project.Choices("app", ())
    probes = project.load([tmp_path / "1.yaml", tmp_path / "2.yaml"], {}, choices).spec.services["web"].container.probes
    assert list(probes.live.exec) == ["c"] and probes.ready.interval_ms == 2_000
    assert sorted((header.name, header.value) for header in probes.ready.http.headers) == [("A", "3"), ("B", "2")]
