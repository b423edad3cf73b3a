"""`restart`, `stop` and `signal`."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from cli import output
from cli.connection import CALL_SECONDS_MAX, connect
from cli.failure import EXIT_OK, EXIT_TIMED_OUT, CommandFailed
from cli.live import Live
from cli.moments import option_duration_ms
from cli.rollout_following import Following
from cli.watching import WaitedTooLong, watch_tasks
from proto import control_pb2, objects_pb2

STOP_SECONDS_MAX = 3600.0


def restart(options: argparse.Namespace) -> int:
    timeout_ms = option_duration_ms("--timeout", options.timeout)
    cluster = connect(options)
    asked = f"restart {options.target}"
    request = control_pb2.RestartRequest(target=options.target, request_id=secrets.token_hex(16))
    reply = cluster.call(
        asked, lambda control: control.RestartTasks(request, timeout=CALL_SECONDS_MAX), repeatable=True
    )
    service, as_json = reply.service, options.output == "json"
    if as_json:
        output.print_json(output.plain(service))
    else:
        print(reply.message)
    if options.detach:
        return EXIT_OK
    live = Live(sys.stderr if as_json else sys.stdout)
    tasks = control_pb2.ListTasksRequest(app=service.app, service=service.meta.name, all=True)
    if not reply.task_name:
        following = Following(asked, tasks, reply.revision, frozenset({service.meta.name}))
        return following.follow(cluster, timeout_ms, live, f"Restarted {service.app}/{service.meta.name}")
    started = time.monotonic()
    try:
        for listing in watch_tasks(cluster, asked, tasks, started + timeout_ms / 1000):
            if listing.revision >= reply.revision and _runs(listing, reply.task_name):
                print(f"Restarted in {time.monotonic() - started:.1f}s.", file=live.stream)
                return EXIT_OK
    except WaitedTooLong:
        raise CommandFailed(asked, f"not done in time; see: fairway ps {service.app}", EXIT_TIMED_OUT) from None
    raise AssertionError("a watch goes on until its time is over")


def _runs(listing: control_pb2.ListTasksReply, name: str) -> bool:
    """Whether the slot has a task again, and nothing of it is on its way."""
    of_slot = [task for task in listing.tasks if task.meta.name == name]
    return any(task.status.ready and task.desired == objects_pb2.DESIRED_STATE_RUNNING for task in of_slot)


def stop(options: argparse.Namespace) -> int:
    grace_ms = option_duration_ms("--time", options.time) if options.time else 0
    request = control_pb2.StopTaskRequest(target=options.task, grace_ms=grace_ms)
    reply = connect(options).call(
        f"stop {options.task}", lambda control: control.StopTask(request, timeout=STOP_SECONDS_MAX)
    )
    if options.output == "json":
        output.print_json(output.plain(reply.task))
    else:
        print(reply.message)
    return EXIT_OK


def signal(options: argparse.Namespace) -> int:
    request = control_pb2.SignalTasksRequest(target=options.target, signal=options.signal)
    reply = connect(options).call(
        f"signal {options.target}", lambda control: control.SignalTasks(request, timeout=CALL_SECONDS_MAX)
    )
    if options.output == "json":
        output.print_json(list(reply.tasks))
    else:
        print("\n".join(reply.tasks))
    return EXIT_OK
