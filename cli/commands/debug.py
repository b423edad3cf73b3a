"""`debug`: a toolbox container beside a task, in its network, among its processes, until it ends or one leaves."""

from __future__ import annotations

import argparse
import os
import sys

from cli.commands.exec import Session, find_task, given_environment
from cli.connection import connect
from cli.failure import EXIT_USAGE, CommandFailed
from cli.pulling import pull, pulled_words
from proto import host_pb2

IMAGE_VARIABLE = "FAIRWAY_DEBUG_IMAGE"
IMAGE_DEFAULT = "busybox:latest"


def debug(options: argparse.Namespace) -> int:
    """Ends with the exit status of what ran in it."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    image = options.image or os.environ.get(IMAGE_VARIABLE) or IMAGE_DEFAULT
    if options.tty and not sys.stdin.isatty():
        raise CommandFailed("debug", "standard input is no terminal; leave -t out", EXIT_USAGE)
    shell = not command and sys.stdin.isatty() and sys.stdout.isatty()
    tty, stdin = options.tty or shell, options.interactive or options.tty or shell
    cluster = connect(options)
    task = find_task(cluster, options.target, f"debug {options.target}")
    name = f"{task.app}/{task.meta.name}"
    reply = pull(cluster, image, False, sys.stderr)
    if not reply.present:
        print(pulled_words(reply), file=sys.stderr)
    start = host_pb2.ExecStart(
        task_id=task.meta.id,
        command=command,
        tty=tty,
        stdin=stdin,
        environment=given_environment("debug", options.env, tty),
        user=options.user,
        debug=host_pb2.DebugStart(image=image),
    )
    if tty:
        print(f"{image} beside {name}: its processes are these, its files are in /proc/1/root.", file=sys.stderr)
    return Session(cluster, f"debug {name}", start, at_terminal=tty).run()
