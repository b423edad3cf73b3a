"""A container's own process as somebody at a terminal has it, and shares that its kernel keeps."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import trio
from google.protobuf.any_pb2 import Any as AnyMessage

from proto import containerd_pb2 as api
from proto.objects_pb2 import ContainerSpec, KernelShares, Resources
from runtime import left_sessions
from runtime.attaching import AttachSession
from runtime.containers import PROCESS_TYPE
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, output_of, request_for


async def all_output(session: AttachSession) -> dict[str, bytes]:
    found = {"stdout": b"", "stderr": b""}
    async for stream, data in session.outputs():
        found[stream] += data
    return found


def test_input_output_and_end_of_the_first_process(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[dict[str, bytes], int]:
        request = request_for(
            image, "sh", "-c", "printf ready; tr a-z A-Z; echo end >&2; exit 6", spec=ContainerSpec(stdin_open=True)
        )
        await runtime.create(request)
        session = runtime.attach(request.id)
        try:
            await runtime.start(request.id)
            await session.send_stdin(b"one\n")
            await session.send_stdin(b"two" * 10_000 + b"\n")
            await session.close_stdin()
            return await all_output(session), await session.wait()
        finally:
            await session.close()
            await runtime.delete(request.id)

    output, code = drive(settings, body)
    assert code == 6
    assert output == {"stdout": b"readyONE\n" + b"TWO" * 10_000 + b"\n", "stderr": b"end\n"}


def test_a_terminal_is_resized_signalled_and_let_go_of(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[bytes, int]:
        script = "trap 'stty size; exit 4' WINCH TERM; stty size; while :; do sleep 0.1; done"
        request = request_for(image, "sh", "-c", script, spec=ContainerSpec(tty=True, stdin_open=True))
        await runtime.create(request)
        first = runtime.attach(request.id)
        try:
            await first.resize(111, 22)
            await runtime.start(request.id)
            seen = b""
            async for _, data in first.outputs():
                seen += data
                if b"22 111" in seen:
                    break
            await first.close()  # it goes on without
            second = runtime.attach(request.id)
            await trio.sleep(0.2)
            assert second.exit_code is None
            await second.signal("TERM")
            output = (await all_output(second))["stdout"]
            code = await second.wait()
            await second.close()
            return output, code
        finally:
            await runtime.delete(request.id)

    output, code = drive(settings, body)
    assert b"22 111" in output
    assert code == 4


def test_shares_are_those_of_the_control_group(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> tuple[int, str]:
        request = request_for(
            image,
            "sh",
            "-c",
            "grep Cpus_allowed_list /proc/self/status",
            spec=ContainerSpec(shares=KernelShares(cpus="0", cpu_shares=512, cpu_period_us=20_000)),
            resources=Resources(cpu_limit_millis=500),
        )
        return await output_of(runtime, request)

    code, text = drive(settings, body)
    assert (code, text.split()) == (0, ["Cpus_allowed_list:", "0"])


def test_what_runs_for_a_daemon_that_was_killed_ends_with_the_next_one(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    request = request_for(image, "sleep", "100000")
    exec_folder = settings.run_folder / "exec"

    async def first(runtime: Runtime) -> tuple[Path, str]:
        await runtime.create(request)
        await runtime.start(request.id)
        async with await runtime.exec(request.id, ["sh", "-c", "sleep 4321 & echo up; sleep 4321"]) as session:
            async for _ in session.outputs():
                break
            (process,) = exec_folder.glob("*/process")
            session.close = trio.lowlevel.checkpoint  # type: ignore[method-assign]  # as of a daemon that is killed
        return process, process.read_text()

    process, text = drive(settings, first)
    assert process.exists()
    leader = int(text.split()[1])
    assert len(session_of(leader)) >= 2

    async def second(runtime: Runtime) -> None:
        while session_of(leader) or any(exec_folder.iterdir()):
            await trio.sleep(0.05)
        await runtime.delete(request.id)

    drive(settings, second)


def session_of(leader: int) -> list[int]:
    """Its processes that run: nobody may wait for one that has ended in a container without an init."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == leader:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found.extend([int(entry.name)] if state != "Z" else [])
    return found


def test_a_daemon_that_is_killed_as_it_starts_a_process_blocks_no_container(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    """The shim waits for the readers of the process's output, and does not say meanwhile that its container runs."""
    request = request_for(image, "sleep", "100000")
    folder = settings.run_folder / "exec" / "exec-of-the-killed"
    pids: list[int] = []

    async def first(runtime: Runtime) -> None:
        await runtime.create(request)
        pids.append(await runtime.start(request.id))
        session = await runtime.exec(request.id, ["true"])
        made = session._request
        await session.close()
        folder.mkdir(parents=True)
        for name in ("stdout", "stderr"):
            os.mkfifo(folder / name)
        left_sessions.note_owner(folder, request.id)
        await runtime._connection.do(
            "tasks.v1.Tasks/Exec",
            api.ExecProcessRequest(
                container_id=request.id,
                exec_id=folder.name,
                stdout=str(folder / "stdout"),
                stderr=str(folder / "stderr"),
                spec=AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(made.process).encode()),
            ),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(never_started, runtime, request.id, folder.name)
            get = api.GetTaskRequest(container_id=request.id)
            while True:  # until its end is to be noticed, for which the shim waits for its start
                reply = await runtime._connection.unary("tasks.v1.Tasks/Get", get, api.GetTaskResponse)
                if reply.process.status == api.Process.Status.UNKNOWN:
                    break
                await trio.sleep(0.02)
            seen = next(container for container in await runtime.list() if container.id == request.id)
            assert (seen.state, seen.pid) == ("running", pids[0])
            assert await runtime.first_process(request.id) == pids[0]
            nursery.cancel_scope.cancel()

    async def second(runtime: Runtime) -> None:
        with trio.fail_after(45):  # it takes a minute where nobody reads
            while folder.exists():
                await trio.sleep(0.05)
        seen = next(container for container in await runtime.list() if container.id == request.id)
        assert (seen.state, seen.pid) == ("running", pids[0])
        assert await output_of_exec(runtime, request.id) == 0
        await runtime.delete(request.id)

    drive(settings, first)
    drive(settings, second)


async def never_started(runtime: Runtime, container_id: str, exec_id: str) -> None:
    start = api.StartRequest(container_id=container_id, exec_id=exec_id)
    await runtime._connection.unary("tasks.v1.Tasks/Start", start, api.StartResponse, timeout_ms=60_000)


async def output_of_exec(runtime: Runtime, container_id: str) -> int:
    async with await runtime.exec(container_id, ["true"]) as session:
        return await session.wait()
