"""`why`: what keeps tasks from running, host by host."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from cli import output, words
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK
from cli.scaling_words import scaling_words
from proto import objects_pb2, why_pb2

_NAMES_SHOWN_MAX = 5
_STOPS_SAID_MAX = 3  # in the reason, by name


def why(options: argparse.Namespace) -> int:
    request = why_pb2.WhyRequest(target=options.target)
    reply = _ask(options, request)
    if options.output == "json":
        output.print_json(output.plain(reply))
        return EXIT_OK
    for scaled in reply.scaled:
        now_unix_ms = time.time_ns() // 1_000_000
        print(
            f"{scaled.service}: {scaling_words(scaled.replicas, scaled.autoscale, scaled.autoscaling, now_unix_ms)}\n"
        )
    if not reply.tasks:
        print(f"no task of {options.target} is wanted")
    for number, task in enumerate(reply.tasks):
        if number:
            print()
        _print_task(task)
    if reply.left_out_count:
        print(f"\n{words.plural(reply.left_out_count, 'more pending task')} not looked at; name a task to ask about it")
    return EXIT_OK


def _ask(options: argparse.Namespace, request: why_pb2.WhyRequest) -> why_pb2.WhyReply:
    return connect(options).call(
        f"explain {request.target}",
        lambda control: control.Why(request, timeout=CALL_SECONDS_MAX),
        repeatable=True,
    )


def _print_task(task: why_pb2.WhyTask) -> None:
    print(f"{_names(task.tasks)}: {_state(task)}" + (f": {task.reason}" if task.reason else ""))
    if len(task.stops) > _STOPS_SAID_MAX:
        print(f"The tasks that end for it: {', '.join(task.stops)}")
    rows = [row for host in task.hosts for row in _rows(host)]
    if not rows:
        return
    print()
    output.print_table(("NODE", "WHY NOT", "WHAT WOULD HELP"), rows)
    if task.hosts_left_out_count:
        print(f"... and {words.plural(task.hosts_left_out_count, 'node')} with as much or more against it")
    nearest = task.hosts[0]
    remedies = [each.remedy for each in nearest.against]
    if remedies and all(remedies):
        print(f"\nNearest is {nearest.node}: {'; and '.join(remedies)}.")


def _rows(host: why_pb2.WhyHost) -> list[tuple[str, str, str]]:
    if not host.against:
        return [(host.node, "fits", "")]
    return [(host.node if number == 0 else "", each.reason, each.remedy) for number, each in enumerate(host.against)]


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN_MAX
    return ", ".join(names[:_NAMES_SHOWN_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _state(task: why_pb2.WhyTask) -> str:
    state = words.enum(objects_pb2.TaskState.DESCRIPTOR, task.state)
    return f"{state} on {task.node}" if task.node else state
