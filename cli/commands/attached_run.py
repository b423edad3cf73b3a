"""`fairway run -i`, `-t`: a task of its own with this terminal, its signals and its exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from cli.commands.exec import Session
from cli.connection import Cluster
from cli.failure import EXIT_USAGE, CommandFailed
from cli.progress_plan import ended, reason
from cli.watching import watch_tasks
from proto import control_pb2, host_pb2, objects_pb2

EXIT_NOT_STARTED = 125  # as docker run: the task could not be started
_EVER_S = 10 * 365 * 86_400.0


def check(options: argparse.Namespace) -> None:
    """Raises CommandFailed where the options do not go together."""
    if not (options.interactive or options.tty):
        return
    for name, given in (("--detach", options.detach), ("--timeout", bool(options.timeout))):
        if given:
            raise CommandFailed("run", f"{name} does not go with -i and -t: leave one of them out", EXIT_USAGE)
    if options.tty and not sys.stdin.isatty():
        raise CommandFailed("run", "standard input is no terminal; leave -t out", EXIT_USAGE)


def attach(options: argparse.Namespace, cluster: Cluster, asked: str, task_of: Callable[[], objects_pb2.Task]) -> int:
    """Waits for the task, which waits for this; its exit status."""
    task = task_of()
    start = host_pb2.ExecStart(task_id=task.meta.id, attach=True, tty=options.tty, stdin=options.interactive)
    return Session(cluster, asked, start, at_terminal=options.tty).run()


def placed_task(cluster: Cluster, asked: str, app: str, service: str, revision: int) -> objects_pb2.Task:
    """The one task of the service, once it has a host; says what it waits for. Raises CommandFailed."""
    watched = control_pb2.ListTasksRequest(app=app, service=service, all=True)
    said = ""
    for listing in watch_tasks(cluster, asked, watched, time.monotonic() + _EVER_S):
        if listing.revision < revision:
            continue
        if not listing.services:
            raise CommandFailed(asked, "somebody removed it before it had started")
        if not listing.tasks:
            continue
        task = listing.tasks[0]
        if ended(task):
            raise CommandFailed(asked, task.status.message or "it failed", EXIT_NOT_STARTED)
        if task.node_id:
            return task
        if task.status.message and reason(task) != said:
            said = reason(task)
            print(f"fairway: {said}", file=sys.stderr)
    raise CommandFailed(asked, "it was never given a host")
