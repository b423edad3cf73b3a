"""`exec`: a process in a task, with this terminal, its signals and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from cli import output, terminal
from cli.connection import CALL_SECONDS_MAX, Cluster, connect
from cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, CommandFailed
from cli.progress_plan import ended
from proto import control_pb2, host_pb2, objects_pb2

READ_BYTES_MAX = 32 << 10
INTERRUPTS_TO_DETACH = 3  # Ctrl-C without a terminal: a process that ignores SIGINT holds nobody up
_STOP = 0  # not a signal: ends the sending side
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CommandFailed("exec", "no command is given: fairway exec TARGET -- COMMAND", EXIT_USAGE)
    if options.tty and not sys.stdin.isatty():
        raise CommandFailed("exec", "standard input is no terminal; leave -t out", EXIT_USAGE)
    cluster = connect(options)
    task = find_task(cluster, options.target)
    start = host_pb2.ExecStart(
        task_id=task.meta.id,
        command=command,
        tty=options.tty,
        stdin=options.interactive,
        environment=given_environment("exec", options.env, options.tty),
        user=options.user,
        working_dir=options.workdir,
    )
    return Session(cluster, f"exec in {task.app}/{task.meta.name}", start, at_terminal=options.tty).run()


def given_environment(asked: str, given: Sequence[str], tty: bool) -> dict[str, str]:
    """From NAME=VALUE; with a terminal, which one it is."""
    found = {"TERM": os.environ.get("TERM", "xterm")} if tty else {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandFailed(asked, f"--env {text!r} is not NAME=VALUE", EXIT_USAGE)
        found[name] = value
    return found


def find_task(cluster: Cluster, target: str, asked: str = "") -> objects_pb2.Task:
    """The task that TARGET names: [APP/]SERVICE.N, [APP/]SERVICE (its first running task), or an id."""
    app, _, name = target.rpartition("/")
    request = control_pb2.ListTasksRequest(app=app)
    asked = asked or f"exec in {target}"
    reply = cluster.call(asked, lambda control: control.ListTasks(request, timeout=CALL_SECONDS_MAX), repeatable=True)
    return choose_task(asked, name, list(reply.tasks))


def choose_task(asked: str, name: str, tasks: list[objects_pb2.Task]) -> objects_pb2.Task:
    """Prefers running tasks, ready ones first. Raises CommandFailed where nothing or too much matches."""
    matching = [
        task
        for task in tasks
        if name in (task.meta.name, task.service) or (len(name) >= 4 and task.meta.id.startswith(name))
    ]
    if not matching:
        known = {each for task in tasks for each in (task.meta.name, task.service)}
        near = difflib.get_close_matches(name, sorted(known), n=2, cutoff=0.6)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise CommandFailed(asked, f"there is no such task or service{hint}; see: fairway ps")
    apps = sorted({task.app for task in matching})
    if len(apps) > 1:
        names = ", ".join(f"{app}/{name}" for app in apps)
        raise CommandFailed(asked, f"several apps have one; choose one of {names}")
    running = [task for task in matching if task.status.state == objects_pb2.TASK_STATE_RUNNING]
    if not running:
        going = [task for task in matching if not ended(task)] or matching
        message = going[0].status.message or "see: fairway ps -a"
        raise CommandFailed(asked, f"no task of it is running; {going[0].meta.name}: {message}")
    return min(running, key=lambda task: (not task.status.ready, task.slot))


class Session:
    """One call of Exec. gRPC pulls `_inputs` in a thread of its own, which waits for standard input and for
    signals in one select; this thread writes the output."""

    def __init__(
        self,
        cluster: Cluster,
        asked: str,
        start: host_pb2.ExecStart,
        *,
        at_terminal: bool,
        pass_signals: bool = True,
        detach_keys: bytes = b"",
    ) -> None:
        """`at_terminal`: standard input is the terminal that the process has, and each key goes there as it is.
        `detach_keys`, typed one after the other, end the session, with exit status 0."""
        self._at_terminal = at_terminal
        self._pass_signals = pass_signals
        self._keys = terminal.KeySequence(detach_keys)
        self._cluster = cluster
        self._asked = asked
        self._start = start
        self._interrupts = 0
        self._detached = EXIT_INTERRUPTED
        self._detach = threading.Event()
        self._sender_ended = threading.Event()

    @property
    def left(self) -> bool:
        """Whether the session was ended here, and not by the end of the process."""
        return self._detach.is_set()

    def run(self) -> int:
        """The exit status of the process."""
        if not self._at_terminal:
            return self._run()
        self._start.size.columns, self._start.size.rows = terminal.window_size(sys.stdin.fileno())
        with terminal.raw_mode(sys.stdin.fileno()):
            return self._run()

    def _run(self) -> int:
        numbers = [
            *(_FORWARDED if self._pass_signals else ()),
            *([signal.SIGWINCH] if self._start.tty and sys.stdin.isatty() else ()),
        ]
        self._signals = terminal.SignalPipe(numbers)
        replies = self._cluster.stream(self._asked, lambda control: control.Exec(self._inputs()))
        try:
            with contextlib.closing(replies):
                for reply in replies:
                    kind = reply.WhichOneof("output")
                    if kind == "exit_code":
                        return reply.exit_code if 0 <= reply.exit_code <= 255 else EXIT_FAILED
                    output.write_all(1 if kind == "stdout" else 2, reply.stdout or reply.stderr)
        except CommandFailed:
            if self._detach.is_set():
                return self._detached
            raise
        finally:
            self._signals.close()
            self._signals.write(_STOP)
            self._cluster.close()
            if self._sender_ended.wait(timeout=1.0):
                self._signals.release()
        if self._detach.is_set():
            return self._detached
        raise CommandFailed(self._asked, "the connection ended before the command did")

    def _inputs(self) -> Iterator[host_pb2.ExecInput]:
        try:
            yield host_pb2.ExecInput(start=self._start)
            sources = [self._signals.reader]
            if self._start.stdin:
                sources.append(sys.stdin.fileno())
            while True:
                readable, _, _ = select.select(sources, [], [])
                if self._signals.reader in readable:
                    for number in self._signals.read():
                        if number == _STOP:
                            return
                        yield from self._signalled(number)
                        if self._detach.is_set():
                            return
                if sys.stdin.fileno() in readable:
                    data = _read(sys.stdin.fileno())
                    if data:
                        passed = self._keys.feed(data)
                        if passed:
                            yield host_pb2.ExecInput(stdin=passed)
                        if self._keys.complete:
                            self._leave(EXIT_OK)
                            return
                    else:
                        sources.remove(sys.stdin.fileno())
                        yield host_pb2.ExecInput(close_stdin=True)
        finally:
            self._sender_ended.set()

    def _signalled(self, number: int) -> Iterator[host_pb2.ExecInput]:
        if number == signal.SIGWINCH:
            columns, rows = terminal.window_size(sys.stdin.fileno())
            yield host_pb2.ExecInput(resize=host_pb2.TerminalSize(columns=columns, rows=rows))
            return
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts >= INTERRUPTS_TO_DETACH:
                self._leave(EXIT_INTERRUPTED)
                return
        yield host_pb2.ExecInput(signal=signal.Signals(number).name)

    def _leave(self, status: int) -> None:
        self._detached = status
        self._detach.set()
        self._cluster.close()  # ends the call: the thread that reads the output goes on


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_BYTES_MAX)
    except OSError:  # the terminal is gone
        return b""
