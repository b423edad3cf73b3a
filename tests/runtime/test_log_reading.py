"""Logs over restarts: what a process wrote is there once, whoever was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from runtime.errors import NotFound
from runtime.log_choice import LogChoice
from runtime.log_intake import path_of
from runtime.log_policy import LogPolicy
from runtime.logs import TaskLogs
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, request_for, until

ATTACHED = """
import sys, trio
from pathlib import Path
from runtime.logs import TaskLogs
from runtime.model import RuntimeSettings

async def main() -> None:
    base = Path(sys.argv[1])
    async with trio.open_nursery() as nursery:
        logs = TaskLogs(RuntimeSettings(base / "c.sock", base / "runc", base / "logs", base / "run"), nursery)
        logs.attach("task", running=False)
        print("attached", flush=True)

trio.run(main)
"""


def with_logs(base: Path, body: Callable[[TaskLogs], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            settings = RuntimeSettings(base / "c.sock", base / "runc", base / "logs", base / "run")
            with trio.fail_after(60):
                await body(TaskLogs(settings, nursery))
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_kill_of_the_daemon_loses_no_unfinished_line(tmp_path: Path) -> None:
    fifo = tmp_path / "run" / "io" / "task" / "out"
    daemon = subprocess.Popen([sys.executable, "-c", ATTACHED, str(tmp_path)], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    writer = -1
    try:
        assert daemon.stdout.readline() == b"attached\n"
        writer = os.open(fifo, os.O_RDWR)  # both ends, as the shim has them
        os.write(writer, b"one\ntwo, be")
        kept = path_of(tmp_path / "logs" / "task", "out")
        deadline = time.monotonic() + 60
        while not (kept.exists() and kept.read_bytes().endswith(b"two, be")):
            assert time.monotonic() < deadline, "the unfinished line was not kept"
            time.sleep(0.005)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(60)
        fifo.with_name("err").unlink()  # nobody writes to it here
        os.write(writer, b"gun\nthree\nfour")

        async def body(logs: TaskLogs) -> None:
            logs.attach("task", running=True)
            read = logs.read("task", follow=True)
            assert [(await read.__anext__()).text for _ in range(3)] == [b"one", b"two, begun", b"three"]
            os.close(writer)
            assert [line.text async for line in read] == [b"four"]
            assert not kept.exists()

        with_logs(tmp_path, body)
    finally:
        daemon.kill()
        daemon.wait(60)
        daemon.stdout.close()


def test_who_is_attached_gets_every_byte_as_it_comes_and_holds_nobody_up_when_gone(tmp_path: Path) -> None:
    async def body(logs: TaskLogs) -> None:
        logs.attach("task", running=False)
        first, second = logs.tap("task"), logs.tap("task")
        logs.untap("task", second)
        out, err = (os.open(tmp_path / "run" / "io" / "task" / name, os.O_WRONLY) for name in ("out", "err"))
        os.write(out, b"pass")
        assert await first.receive() == ("stdout", b"pass")
        os.write(err, b"word? ")
        assert await first.receive() == ("stderr", b"word? ")
        os.write(out, b"!\n")
        os.close(out)
        os.close(err)
        assert [chunk async for chunk in first] == [("stdout", b"!\n")]
        await logs.ended("task")
        logs.untap("task", first)
        assert [line.text async for line in logs.read("task", follow=False)] == [b"pass!", b"word? "]
        with pytest.raises(NotFound):
            logs.tap("task")

    with_logs(tmp_path, body)


def test_a_follower_goes_on_over_the_containers_of_one_task(tmp_path: Path) -> None:
    async def body(logs: TaskLogs) -> None:
        logs.hold("task")
        seen: list[bytes] = []
        followed = trio.Event()

        async def follow() -> None:
            async for line in logs.read("task", follow=True):
                seen.append(line.text)  # noqa: PERF401 each is looked at as it comes
            followed.set()

        async def write(container: str) -> None:
            logs.attach(container, running=False, tty=True)
            writer = os.open(tmp_path / "run" / "io" / container / "out", os.O_WRONLY)
            os.write(writer, f"from {container}\n".encode())
            os.close(writer)
            await logs.detach(container)

        await write("task.init.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await until(lambda: len(seen) == 1)
            await write("task.init.2")
            await until(lambda: len(seen) == 2)
            assert not followed.is_set()
            await write("task")
            await until(lambda: len(seen) == 3)
            logs.release("task")
            await followed.wait()
        assert seen == [b"from task.init.1", b"from task.init.2", b"from task"]

    with_logs(tmp_path, body)


def test_a_task_has_bounds_of_its_own_and_may_keep_nothing(tmp_path: Path) -> None:
    async def body(logs: TaskLogs) -> None:
        for task, policy in (
            ("small", LogPolicy(20_000, 3, compress=True)),
            ("silent", LogPolicy(20_000, 3, kept=False)),
        ):
            logs.attach(task, running=False, tty=True, policy=policy)
            writer = os.open(tmp_path / "run" / "io" / task / "out", os.O_WRONLY)
            for number in range(20):
                os.write(writer, b"%07d %s\n" % (number, b"x" * 8_000))
                await trio.sleep(0.03)
            os.close(writer)
            while (changed := logs.change_of(task)) is not None:
                await changed.wait()
        folder = tmp_path / "logs" / "small"
        await until(lambda: len(list(folder.glob("*.log"))) == 1)
        assert len(list(folder.glob("*.log.gz"))) == 2
        lines = [line.text async for line in logs.read("small", follow=False)]
        assert lines[-1].startswith(b"0000019 ")
        assert [int(line[:7]) for line in lines] == list(range(20 - len(lines), 20))
        assert not (tmp_path / "logs" / "silent").exists()

    with_logs(tmp_path, body)


def test_a_daemon_that_goes_in_order_leaves_the_line_to_the_next(tmp_path: Path) -> None:
    fifo = tmp_path / "run" / "io" / "task" / "out"
    ends: list[int] = []

    async def first(logs: TaskLogs) -> None:
        logs.attach("task", running=False)
        ends.append(os.open(fifo, os.O_RDWR))
        os.write(ends[0], b"a line in")
        await until(path_of(tmp_path / "logs" / "task", "out").exists)

    async def second(logs: TaskLogs) -> None:
        logs.recover("task")  # its task ended meanwhile, and what it had begun is its last line
        assert [line.text async for line in logs.read("task", follow=True)] == [b"a line in"]
        logs.recover("task")
        assert [line.text async for line in logs.read("task", follow=True)] == [b"a line in"]

    with_logs(tmp_path, first)
    os.close(ends[0])
    with_logs(tmp_path, second)


def test_what_is_left_of_a_task_that_has_ended_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "run" / "io" / "task" / "out"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    (tmp_path / "logs" / "task").mkdir(parents=True)
    kept = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # as systemd keeps it, so that what it holds stays
    try:
        writer = os.open(fifo, os.O_WRONLY)
        os.write(writer, b"one\ntwo\n")
        os.close(writer)

        async def body(logs: TaskLogs) -> None:
            logs.recover("task")
            assert [line.text async for line in logs.read("task", follow=True)] == [b"one", b"two"]

        with_logs(tmp_path, body)
    finally:
        os.close(kept)


def lines_after(settings: RuntimeSettings, container_id: str) -> list[bytes]:
    """What a new daemon gives of the whole log of a task that ends."""

    async def body(runtime: Runtime) -> list[bytes]:
        await runtime.list()
        await runtime.wait(container_id)
        lines = [line.text async for line in runtime.read_log(container_id, follow=True)]
        await runtime.delete(container_id)
        return lines

    return drive(settings, body)


def started(settings: RuntimeSettings, image: LoadedImage, script: str) -> tuple[str, int]:
    """Starts a container under a daemon that goes down once its first line, "one", has come."""
    request = request_for(image, "sh", "-c", script)

    async def body(runtime: Runtime) -> int:
        await runtime.create(request)
        pid = await runtime.start(request.id)
        async for line in runtime.read_log(request.id, follow=True):
            assert line.text == b"one"
            break
        return pid

    return request.id, drive(settings, body)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_line_of_a_task_that_outlives_the_daemon(settings: RuntimeSettings, image: LoadedImage) -> None:
    script = (
        "echo one; until [ -f /tmp/go ]; do sleep 0.02; done; seq 1 2000; touch /tmp/done;"
        "until [ -f /tmp/end ]; do sleep 0.02; done; echo last"
    )
    container_id, pid = started(settings, image, script)
    root = Path(f"/proc/{pid}/root/tmp")
    (root / "go").touch()
    wait_for((root / "done").exists)

    async def second(runtime: Runtime) -> None:
        await runtime.list()
        read = runtime.read_log(container_id, follow=True)
        while (await read.__anext__()).text != b"2000":
            pass

    drive(settings, second)
    (root / "end").touch()
    expected = [b"one", *(b"%d" % number for number in range(1, 2001))]
    lines = lines_after(settings, container_id)
    assert lines[: len(expected)] == expected
    assert lines[len(expected) :] in ([], [b"last"])  # docs/logs.md: a last word without a daemon may be lost


def test_tail_and_since_of_a_task(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sh", "-c", "seq 1 50; echo x >&2")
        await runtime.create(request)
        await runtime.start(request.id)
        await runtime.wait(request.id)
        lines = [line async for line in runtime.read_log(request.id, follow=True)]
        assert [line.text async for line in runtime.read_log(request.id, choice=LogChoice(tail_lines=2))] == [
            line.text for line in lines[-2:]
        ]
        later_ms = lines[-1].unix_ns // 1_000_000 + 1
        assert [line async for line in runtime.read_log(request.id, choice=LogChoice(since_unix_ms=later_ms))] == []
        assert [line.standard_error for line in lines].count(True) == 1
        await runtime.delete(request.id)
        assert len([line async for line in runtime.read_log(request.id)]) == 51
        await runtime.remove_logs(request.id)
        assert not (settings.log_folder / request.id).exists()

    drive(settings, body)
