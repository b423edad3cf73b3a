"""`doctor`, `net trace` and `metrics` against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cli.commands.doctor import target_and_port
from cli.failure import CommandFailed
from proto import doctor_pb2 as doctor
from tests.cli.conftest import Ended
from tests.cli.control_server import ControlServer

Fairway = Callable[..., Ended]


def finding(level: doctor.FindingLevel.ValueType, where: str, message: str) -> doctor.Finding:
    return doctor.Finding(level=level, check="disk", where=where, message=message, advice="make room")


@pytest.mark.parametrize(
    ("levels", "code", "said"),
    [
        ((), 0, "All is well: 2 hosts answered, silent: c."),
        ((doctor.FINDING_LEVEL_INFO,), 0, "All is well"),
        ((doctor.FINDING_LEVEL_WARNING, doctor.FINDING_LEVEL_INFO), 5, "0 broken, 1 warning:"),
        ((doctor.FINDING_LEVEL_ERROR, doctor.FINDING_LEVEL_WARNING), 6, "1 broken, 1 warning:"),
    ],
)
def test_doctors_exit_status_is_that_of_the_worst_finding(
    server: ControlServer, fairway: Fairway, levels: tuple[doctor.FindingLevel.ValueType, ...], code: int, said: str
) -> None:
    findings = [finding(level, f"host-{number}", f"words {number}") for number, level in enumerate(levels)]
    reply = doctor.DoctorReply(findings=findings, hosts_asked=["a", "b", "c"], hosts_answered=["a", "b"])
    server.on("ExamineHost", reply)
    ended = fairway("doctor")
    assert (ended.code, ended.err) == (code, "")
    assert said in ended.out
    as_json = fairway("doctor", "-o", "json")
    assert as_json.code == code
    assert len(json.loads(as_json.out)["findings"]) == len(levels)


def test_what_several_hosts_say_is_said_once_and_notes_only_when_asked_for(
    server: ControlServer, fairway: Fairway
) -> None:
    findings = [finding(doctor.FINDING_LEVEL_ERROR, f"host-{number}", "full") for number in range(10)]
    findings.append(finding(doctor.FINDING_LEVEL_INFO, "host-1", "a note"))
    server.on("ExamineHost", doctor.DoctorReply(findings=findings, checks=["disk", "clock"]))
    out = fairway("doctor").out
    assert out.count("full") == 1
    assert "host-0, host-1, host-2, host-3, host-4, host-5 and 4 more: disk: full" in out
    assert "do: make room" in out
    assert "a note" not in out
    everything = fairway("doctor", "--all").out
    assert "a note" in everything
    assert "Looked at: disk, clock." in everything


def test_a_trace_prints_its_hops_and_ends_with_the_verdict(server: ControlServer, fairway: Fairway) -> None:
    reply = doctor.TracePathReply(
        hops=[
            doctor.TraceHop(hop="name", where="host-1", outcome=doctor.HOP_OUTCOME_OK, message="db is 10.120.0.1"),
            doctor.TraceHop(hop="route", where="host-1", outcome=doctor.HOP_OUTCOME_FAILED, message="no route"),
        ],
        verdict="route on host-1: no route",
        advice="look at `ip rule`",
    )
    server.on("TracePath", reply)
    ended = fairway("net", "trace", "shop/web", "db:5432")
    assert ended.code == 6
    assert ended.out.splitlines() == [
        "ok     name   host-1  db is 10.120.0.1",
        "FAILS  route  host-1  no route",
        "",
        "route on host-1: no route",
        "do: look at `ip rule`",
    ]
    (asked,) = server.asked("TracePath")
    assert (asked.source, asked.target, asked.port, asked.protocol) == ("shop/web", "db", 5432, "tcp")
    reply.reached = True
    assert fairway("net", "trace", "--udp", "shop/web", "db").code == 0
    assert server.asked("TracePath")[-1].protocol == "udp"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("db", ("db", 0)),
        ("shop/db:80", ("shop/db", 80)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
    ],
)
def test_targets_and_ports(text: str, meant: tuple[str, int]) -> None:
    assert target_and_port(text) == meant


@pytest.mark.parametrize("text", ["db:", "db:http", "db:0", "db:65536", "[2001:db8::1]:x"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="no port"):
        target_and_port(text)


def test_metrics_are_printed_as_they_come(server: ControlServer, fairway: Fairway) -> None:
    server.on("ReadMetrics", doctor.ReadMetricsReply(text="# TYPE x gauge\nx 1\n"))
    assert fairway("metrics", "host-2").out == "# TYPE x gauge\nx 1\n"
    assert server.asked("ReadMetrics")[0].node == "host-2"
