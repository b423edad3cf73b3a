"""`stats` and `top`: what tasks and their processes use."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_OK
from proto import control_pb2, hands_pb2

INTERVAL_SECONDS = 1.0
HEADINGS = (
    "TASK",
    "NODE",
    "CPU %",
    "MEMORY",
    "LIMIT",
    "MEM %",
    "NET IN",
    "NET OUT",
    "DISK IN",
    "DISK OUT",
    "PIDS",
)
Usages = Mapping[str, hands_pb2.TaskUsage]


def stats(options: argparse.Namespace) -> int:
    cluster = connect(options)
    request = control_pb2.ReadUsageRequest(targets=options.targets)
    before = _read(cluster, request)
    screen = _Screen()
    while True:
        time.sleep(INTERVAL_SECONDS)
        now = _read(cluster, request)
        earlier = {usage.task_id: usage for usage in before.tasks}
        if options.output == "json":
            found = [{**output.plain(usage), "cpu_percent": cpu_percent(earlier, usage)} for usage in now.tasks]
            print(json.dumps(found, indent=2) if options.no_stream else json.dumps(found), flush=True)
        else:
            screen.show(output.table(HEADINGS, rows(earlier, now.tasks), output.terminal_columns(sys.stdout)))
        for silent in now.silent:
            output.warn(silent)
        if options.no_stream:
            return EXIT_OK
        before = now


def _read(cluster: Cluster, request: control_pb2.ReadUsageRequest) -> control_pb2.ReadUsageReply:
    return cluster.call("stats", lambda control: control.ReadUsage(request, timeout=CALL_SECONDS_MAX), repeatable=True)


def rows(before: Usages, now: Sequence[hands_pb2.TaskUsage]) -> list[Sequence[str]]:
    """One a task, in the order of `now`."""
    found: list[Sequence[str]] = []
    for usage in now:
        percent = cpu_percent(before, usage)
        limit = usage.memory_limit_bytes
        found.append(
            (
                usage.name,
                usage.node,
                "-" if percent is None else f"{percent:.1f}",
                words.size(usage.memory_bytes),
                words.size(limit) if limit else "-",
                f"{100 * usage.memory_bytes / limit:.1f}" if limit else "-",
                words.size(usage.received_bytes),
                words.size(usage.sent_bytes),
                words.size(usage.read_bytes),
                words.size(usage.written_bytes),
                str(usage.processes),
            )
        )
    return found


def cpu_percent(before: Usages, usage: hands_pb2.TaskUsage) -> float | None:
    """100 is one core; None where there is nothing to compare with."""
    earlier = before.get(usage.task_id)
    if earlier is None or usage.sampled_ns <= earlier.sampled_ns:
        return None
    return 100 * max(usage.cpu_ns - earlier.cpu_ns, 0) / (usage.sampled_ns - earlier.sampled_ns)


class _Screen:
    """On a terminal, what was shown last is replaced; else an empty line is between one time and the next."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty()
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        if self._redraws:
            lines = lines[: max(output.terminal_lines(sys.stdout) - 1, 1)]
            sys.stdout.write(f"\x1b[{self._shown}A\r\x1b[J" if self._shown else "")
        elif self._shown:
            sys.stdout.write("\n")
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self._shown = len(lines)


def top(options: argparse.Namespace) -> int:
    request = control_pb2.ListProcessesRequest(target=options.target)
    asked = f"top of {options.target}"
    reply = connect(options).call(
        asked, lambda control: control.ListProcesses(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )
    if options.output == "json":
        output.print_items(reply.processes)
        return EXIT_OK
    wide = options.output == "wide"
    headings = ("PID", *(("HOST PID", "PARENT") if wide else ()), "USER", "STATE", "CPU %", "MEMORY", "AGE", "COMMAND")
    output.print_table(headings, [_process_row(each, wide) for each in reply.processes])
    if reply.more:
        output.warn("there are more processes than are listed")
    return EXIT_OK


def _process_row(process: hands_pb2.TaskProcess, wide: bool) -> Sequence[str]:
    return (
        str(process.id),
        *((str(process.host_id), str(process.parent)) if wide else ()),
        process.user,
        process.state,
        f"{process.cpu_millis / 10:.1f}",
        words.size(process.memory_bytes),
        words.duration(process.age_ms),
        process.command,
    )
