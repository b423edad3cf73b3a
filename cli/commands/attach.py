"""`attach`: what the first process of a running task writes, and its input, until one leaves or it ends."""

from __future__ import annotations

import argparse
import sys

from cli import terminal
from cli.commands.exec import Session, find_task
from cli.connection import connect
from cli.failure import EXIT_USAGE, CommandFailed
from proto import host_pb2


def attach(options: argparse.Namespace) -> int:
    try:
        keys = terminal.parse_keys(options.detach_keys)
    except ValueError as error:
        raise CommandFailed("--detach-keys", str(error), EXIT_USAGE) from None
    cluster = connect(options)
    task = find_task(cluster, options.target, f"attach to {options.target}")
    name, container = f"{task.app}/{task.meta.name}", task.spec.container
    start = host_pb2.ExecStart(
        task_id=task.meta.id, attach=True, tty=container.tty, stdin=container.stdin_open and not options.no_stdin
    )
    at_terminal = start.tty and start.stdin and sys.stdin.isatty()
    leave = f"{options.detach_keys} leaves it" if at_terminal and keys else "Ctrl-C leaves it"
    if options.sig_proxy and not at_terminal:
        leave = "signals are passed on; Ctrl-C three times leaves it"
    if sys.stderr.isatty():
        print(f"Attached to {name}; {leave}.", file=sys.stderr)
    session = Session(
        cluster,
        f"attach to {name}",
        start,
        at_terminal=at_terminal,
        pass_signals=options.sig_proxy or at_terminal,
        detach_keys=keys if at_terminal else b"",
    )
    status = session.run()
    if at_terminal and session.left:
        print(f"\nLeft {name}, which goes on.", file=sys.stderr)
    return status
