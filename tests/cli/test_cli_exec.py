"""`exec`: a real pseudo-terminal on this side, a scripted server on the other."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands.exec import choose_task
from cli.failure import CommandFailed
from cli.terminal import KeySequence, parse_keys
from proto import control_pb2, host_pb2
from tests.cli.control_server import ControlServer
from tests.cli.test_cli_rendering import PENDING, listing, task

DEADLINE_SECONDS = 60.0


def stdout(text: str) -> host_pb2.ExecOutput:
    return host_pb2.ExecOutput(stdout=text.encode())


def echo(requests: Iterator[host_pb2.ExecInput], context: Any) -> Iterator[host_pb2.ExecOutput]:
    """Says back what it is told; ends with 7 when it reads "q", or when input ends."""
    for request in requests:
        kind = request.WhichOneof("input")
        if kind == "start":
            size = f" {request.start.size.columns}x{request.start.size.rows}" if request.start.tty else ""
            yield stdout(f"started {' '.join(request.start.command)}{size}\r\n")
        elif kind == "stdin":
            yield stdout(f"got {request.stdin.hex()}\r\n")
            if b"q" in request.stdin:
                break
        elif kind == "resize":
            yield stdout(f"resized {request.resize.columns}x{request.resize.rows}\r\n")
        elif kind == "signal":
            yield host_pb2.ExecOutput(stderr=f"signal {request.signal}\n".encode())
        elif kind == "close_stdin":
            break
    yield host_pb2.ExecOutput(exit_code=7)


@pytest.fixture
def scripted(server: ControlServer) -> ControlServer:
    server.on("ListTasks", listing([], [task("web", 1, ready=True)]))
    server.on("Exec", echo)
    return server


def command(*arguments: str, verb: str = "exec") -> list[str]:
    return [sys.executable, "-m", "cli.main", verb, *arguments]


class _Terminal:
    """A pseudo-terminal with a child on its other end."""

    def __init__(self, *arguments: str, verb: str = "exec") -> None:
        self.master, self.slave = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(self.slave)
        self.child = subprocess.Popen(
            command(*arguments, verb=verb),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text.encode() not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come; seen: {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(timeout=DEADLINE_SECONDS)
        os.close(self.master)
        os.close(self.slave)


def test_a_terminal_is_raw_follows_its_window_and_is_put_back(scripted: ControlServer) -> None:
    terminal = _Terminal("-it", "web", "--", "sh", "-c", "x")
    try:
        terminal.expect("started sh -c x 100x30")
        terminal.type(b"a\x03")  # Ctrl-C is a key like any other
        terminal.expect("03\r\n")
        assert not termios.tcgetattr(terminal.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        terminal.resize(90, 20)
        terminal.child.send_signal(signal.SIGWINCH)
        terminal.expect("resized 90x20")
        terminal.type(b"q")
        terminal.expect("got 71")
        assert terminal.child.wait(timeout=DEADLINE_SECONDS) == 7
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()


def test_the_terminal_is_put_back_when_the_server_goes_away(scripted: ControlServer) -> None:
    terminal = _Terminal("-it", "web", "sh")
    try:
        terminal.expect("started sh")
        scripted.stop()
        assert terminal.child.wait(timeout=DEADLINE_SECONDS) in (1, 3)
        assert termios.tcgetattr(terminal.slave) == terminal.before
        terminal.expect("fairway: exec in shop/web.1")
    finally:
        terminal.close()


def test_a_pipe_is_passed_on_with_its_end_and_the_exit_status(scripted: ControlServer) -> None:
    ended = subprocess.run(
        command("-i", "web.1", "--", "cat", "-"), input=b"abc", capture_output=True, timeout=DEADLINE_SECONDS
    )
    assert ended.returncode == 7
    assert ended.stdout == b"started cat -\r\ngot 616263\r\n"


def test_signals_are_passed_on_and_three_interrupts_detach(scripted: ControlServer) -> None:
    child = subprocess.Popen(command("web", "sleep", "9"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    killer = threading.Timer(DEADLINE_SECONDS, child.kill)
    killer.start()
    try:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == b"started sleep 9\r\n"
        child.send_signal(signal.SIGTERM)
        assert child.stderr.readline() == b"signal SIGTERM\n"
        for _ in range(2):
            child.send_signal(signal.SIGINT)
            assert child.stderr.readline() == b"signal SIGINT\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=DEADLINE_SECONDS) == 130
    finally:
        killer.cancel()
        child.kill()
        child.communicate()


def test_the_keys_that_leave_a_task_are_not_typed_to_it(scripted: ControlServer) -> None:
    running = task("web", 1, ready=True)
    running.spec.container.tty = running.spec.container.stdin_open = True
    scripted.on("ListTasks", listing([], [running]))
    terminal = _Terminal("web", verb="attach")
    try:
        terminal.expect("Attached to shop/web.1; ctrl-p,ctrl-q leaves it.")
        terminal.expect("started")
        terminal.type(b"a\x10b\x10")
        terminal.expect("got 611062\r\n")
        terminal.type(b"\x11")
        terminal.expect("Left shop/web.1, which goes on.")
        assert terminal.child.wait(timeout=DEADLINE_SECONDS) == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before
        assert b"got 10\r" not in terminal.seen
    finally:
        terminal.close()


@given(st.text("pqx", max_size=30), st.integers(1, 4))
def test_keys_are_found_however_they_are_cut(typed: str, length: int) -> None:
    keys, passed = KeySequence(b"ppq"), b""
    for start in range(0, len(typed), length):
        passed += keys.feed(typed[start : start + length].encode())
        if keys.complete:
            break
    before, found, _ = typed.partition("ppq")
    assert keys.complete == bool(found)
    held = "" if found else next(end for end in ("pp", "p", "") if typed.endswith(end))
    assert passed.decode() == before.removesuffix(held)


def test_keys_that_are_none_are_refused() -> None:
    assert parse_keys("ctrl-p,ctrl-Q,x") == b"\x10\x11x"
    assert parse_keys("") == b""
    for text in ("ctrl-", "ctrl-pp", "shift-a", "a,,b"):
        with pytest.raises(ValueError, match="is no key"):
            parse_keys(text)


def test_tty_without_a_terminal_is_refused(scripted: ControlServer) -> None:
    ended = subprocess.run(
        command("-t", "web", "--", "sh"), stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_SECONDS
    )
    assert (ended.returncode, b"no terminal" in ended.stderr) == (2, True)


def test_which_task_is_meant() -> None:
    first, second = task("web", 1), task("web", 2, ready=True)
    assert choose_task("exec", "web", [first, second]) == second
    assert choose_task("exec", "web.1", [first, second]) == first
    assert choose_task("exec", first.meta.id, [first, second]) == first
    other = control_pb2.ListTasksReply(tasks=[first]).tasks[0]
    other.app = "blog"
    for name, tasks, words in (
        ("nope", [first], "no such task"),
        ("web", [first, other], "choose one of blog/web, shop/web"),
        ("web", [task("web", 1, PENDING, message="no room")], "web.1: no room"),
    ):
        with pytest.raises(CommandFailed, match=words):
            choose_task("exec", name, tasks)
