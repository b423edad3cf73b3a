"""`doctor`, `net trace` and `metrics`."""

from __future__ import annotations

import argparse
import sys

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_FOUND_BROKEN, EXIT_OK, EXIT_USAGE, EXIT_WARNINGS, CommandFailed
from proto import doctor_pb2

PLACES_MAX = 6  # named; the rest is counted
_LEVELS = {
    doctor_pb2.FINDING_LEVEL_ERROR: ("BROKEN", "red"),
    doctor_pb2.FINDING_LEVEL_WARNING: ("warning", "yellow"),
    doctor_pb2.FINDING_LEVEL_INFO: ("note", "dim"),
}
_OUTCOMES = {
    doctor_pb2.HOP_OUTCOME_OK: ("ok", "green"),
    doctor_pb2.HOP_OUTCOME_FAILED: ("FAILS", "red"),
    doctor_pb2.HOP_OUTCOME_SKIPPED: ("-", "dim"),
    doctor_pb2.HOP_OUTCOME_NOTE: ("note", "yellow"),
}


def examine(options: argparse.Namespace) -> int:
    """Exit status 0, EXIT_WARNINGS or EXIT_FOUND_BROKEN, after the worst finding."""
    cluster = connect(options)
    request, asked = doctor_pb2.DoctorRequest(), "examine the cluster"
    if cluster.is_local:
        # Also where this host is no voter, or in no cluster at all.
        reply = cluster.local(asked, lambda local: local.ExamineHost(request, timeout=CALL_SECONDS_MAX))
    else:
        reply = cluster.call(asked, lambda control: control.Doctor(request, timeout=CALL_SECONDS_MAX), repeatable=True)
    worst = max((finding.level for finding in reply.findings), default=doctor_pb2.FINDING_LEVEL_INFO)
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        _print_findings(reply, options.all)
    if worst == doctor_pb2.FINDING_LEVEL_ERROR:
        return EXIT_FOUND_BROKEN
    return EXIT_WARNINGS if worst == doctor_pb2.FINDING_LEVEL_WARNING else EXIT_OK


def _print_findings(reply: doctor_pb2.DoctorReply, everything: bool) -> None:
    colours = output.colours(sys.stdout)
    shown = [finding for finding in reply.findings if everything or finding.level != doctor_pb2.FINDING_LEVEL_INFO]
    for finding, places in _grouped(shown):
        word, colour = _LEVELS.get(finding.level, ("?", "dim"))
        print(f"{output.paint(f'{word:<8}', colour, colours)} {places}: {finding.check}: {finding.message}")
        if finding.advice:
            print(f"         {output.paint('do: ' + finding.advice, 'cyan', colours)}")
    if everything:
        print(f"Looked at: {', '.join(reply.checks)}.")
    silent = sorted(set(reply.hosts_asked) - set(reply.hosts_answered))
    asked = f"{words.plural(len(reply.hosts_answered), 'host')} answered"
    broken = sum(finding.level == doctor_pb2.FINDING_LEVEL_ERROR for finding in reply.findings)
    warnings = sum(finding.level == doctor_pb2.FINDING_LEVEL_WARNING for finding in reply.findings)
    summary = "All is well" if not broken and not warnings else f"{broken} broken, {words.plural(warnings, 'warning')}"
    print(f"{summary}: {asked}{', silent: ' + ', '.join(silent) if silent else ''}.")


def _grouped(findings: list[doctor_pb2.Finding]) -> list[tuple[doctor_pb2.Finding, str]]:
    """What several hosts say in the same words is said once, with the names of the first few."""
    places: dict[tuple[int, str, str, str], list[str]] = {}
    first: dict[tuple[int, str, str, str], doctor_pb2.Finding] = {}
    for finding in findings:
        key = (finding.level, finding.check, finding.message, finding.advice)
        first.setdefault(key, finding)
        places.setdefault(key, []).append(finding.where)
    found = []
    for group, one in first.items():
        names = places[group]
        more = f" and {len(names) - PLACES_MAX} more" if len(names) > PLACES_MAX else ""
        found.append((one, ", ".join(names[:PLACES_MAX]) + more))
    return found


def trace(options: argparse.Namespace) -> int:
    """Exit status EXIT_FOUND_BROKEN where a hop fails."""
    target, port = target_and_port(options.target)
    request = doctor_pb2.TracePathRequest(
        source=options.source, target=target, port=port, protocol="udp" if options.udp else "tcp"
    )
    reply = connect(options).call(
        f"trace the path from {options.source} to {options.target}",
        lambda control: control.TracePath(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    if options.output == "json":
        output.print_json(output.plain(reply))
    else:
        _print_hops(reply)
    return EXIT_OK if reply.reached else EXIT_FOUND_BROKEN


def _print_hops(reply: doctor_pb2.TracePathReply) -> None:
    colours = output.colours(sys.stdout)
    width = max((len(hop.hop) for hop in reply.hops), default=0)
    place = max((len(hop.where) for hop in reply.hops), default=0)
    for hop in reply.hops:
        word, colour = _OUTCOMES.get(hop.outcome, ("?", "dim"))
        outcome = output.paint(f"{word:<5}", colour, colours)
        print(f"{outcome}  {hop.hop:<{width}}  {hop.where:<{place}}  {hop.message}")
    print()
    print(output.paint(reply.verdict, "green" if reply.reached else "red", colours))
    if reply.advice:
        print(output.paint(f"do: {reply.advice}", "cyan", colours))


def target_and_port(text: str) -> tuple[str, int]:
    """ "NAME", "NAME:PORT", "1.2.3.4:PORT", "2001:db8::1" or "[2001:db8::1]:PORT"."""
    name, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1], 0
    if not colon or (":" in name and not name.startswith("[")):
        return text, 0
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise CommandFailed(f"trace a path to {text}", f"{port!r} is no port; write TARGET:PORT", EXIT_USAGE)
    return name.strip("[]"), int(port)


def metrics(options: argparse.Namespace) -> int:
    reply = connect(options).call(
        "read metrics",
        lambda control: control.ReadMetrics(doctor_pb2.ReadMetricsRequest(node=options.node), timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )
    print(reply.text, end="")
    return EXIT_OK
