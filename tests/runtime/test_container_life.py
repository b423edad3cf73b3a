"""Stopping, removing, and living on across restarts of the daemon and of containerd."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from proto.objects_pb2 import ContainerSpec, Resources
from runtime import errors
from runtime.model import EventKind, LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.control_groups import control_groups
from tests.runtime.conftest import Containerd, drive, mounts, request_for, shims, until


def test_a_stop_sends_the_signal_and_then_kills(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        kind = request_for(image, "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")
        deaf = request_for(image, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
        for request in (kind, deaf):
            await runtime.create(request)
            await runtime.start(request.id)
            async for line in runtime.read_log(request.id, follow=True):
                assert line.text == b"up"
                break
        assert (await runtime.stop(kind.id, "SIGTERM", 30_000)).exit_code == 3
        assert (await runtime.stop(deaf.id, "TERM", 200)).exit_code == 137
        for request in (kind, deaf):
            await runtime.delete(request.id)
            await runtime.delete(request.id)

    drive(settings, body)


def test_delete_leaves_nothing(settings: RuntimeSettings, image: LoadedImage, containerd: Containerd) -> None:
    async def body(runtime: Runtime) -> None:
        before = set(shims(containerd.folder))
        request = request_for(image, "sleep", "1000")
        await runtime.create(request)
        await runtime.start(request.id)
        assert control_groups(request.id)
        assert any(request.id in target for target in mounts(containerd.folder))
        await runtime.delete(request.id)
        assert request.id not in {container.id for container in await runtime.list()}
        assert not any(request.id in target for target in mounts(containerd.folder))
        assert not control_groups(request.id)
        assert not (settings.run_folder / "io" / request.id).exists()
        await until(lambda: set(shims(containerd.folder)) <= before)

    drive(settings, body)


def test_a_program_that_is_missing_is_said_and_leaves_nothing(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(image, "no-such-program")
        with pytest.raises(errors.CannotStart, match="no-such-program"):
            await runtime.create(request)
        assert request.id not in {container.id for container in await runtime.list()}

    drive(settings, body)


def test_out_of_memory_is_seen(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(
            image,
            "sh",
            "-c",
            "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done",
            resources=Resources(memory_limit_bytes=16 << 20),
        )
        await runtime.create(request)
        await runtime.start(request.id)
        ended = await runtime.wait(request.id)
        assert ended.out_of_memory
        seen = next(container for container in await runtime.list() if container.id == request.id)
        assert (seen.state, seen.out_of_memory) == ("stopped", True)
        await runtime.delete(request.id)

    drive(settings, body)


def test_output_and_containers_survive_a_new_daemon(settings: RuntimeSettings, image: LoadedImage) -> None:
    script = "echo one; until [ -f /tmp/go ]; do sleep 0.05; done; echo two"
    request = request_for(image, "sh", "-c", script)

    async def first(runtime: Runtime) -> int:
        await runtime.create(request)
        pid = await runtime.start(request.id)
        async for line in runtime.read_log(request.id, follow=True):
            assert line.text == b"one"
            break
        return pid

    pid = drive(settings, first)
    Path(f"/proc/{pid}/root/tmp/go").touch()

    async def second(runtime: Runtime) -> list[bytes]:
        await runtime.list()
        await runtime.wait(request.id)
        lines = [line.text async for line in runtime.read_log(request.id, follow=True)]
        await runtime.delete(request.id)
        return lines

    # The process may end before the second daemon looks; then what it wrote meanwhile is the shim's to keep.
    assert drive(settings, second)[0] == b"one"


def test_containers_survive_containerd(settings: RuntimeSettings, image: LoadedImage, containerd: Containerd) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sleep", "1000")
        await runtime.create(request)
        pid = await runtime.start(request.id)
        events = runtime.subscribe()
        assert (await events.__anext__()).kind is EventKind.RESYNC
        containerd.kill()
        await until(lambda: not runtime.healthy)
        containerd.start()
        with trio.fail_after(60):
            while (await events.__anext__()).kind is not EventKind.RESYNC:
                pass
        seen = next(container for container in await runtime.list() if container.id == request.id)
        assert (seen.state, seen.pid) == ("running", pid)
        assert (await runtime.stop(request.id, "SIGKILL", 1000)).exit_code == 137
        await runtime.delete(request.id)

    drive(settings, body)


def test_a_containerd_that_hangs_is_noticed_and_no_fault_of_its_containers(
    settings: RuntimeSettings, image: LoadedImage, containerd: Containerd
) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sleep", "1000")
        await runtime.create(request)
        pid = await runtime.start(request.id)
        events = runtime.subscribe()
        assert (await events.__anext__()).kind is EventKind.RESYNC
        containerd.send(signal.SIGSTOP)
        try:
            await until(containerd.stands_still)
            with pytest.raises(errors.Unavailable):  # and not TimedOut, which would count against the container
                await runtime.run_check(request.id, ["true"], 200)
            await until(lambda: not runtime.healthy)
            assert "hangs" in runtime.error
        finally:
            containerd.send(signal.SIGCONT)
        with trio.fail_after(60):
            while (await events.__anext__()).kind is not EventKind.RESYNC:
                pass
        assert (runtime.healthy, runtime.error) == (True, "")
        seen = next(container for container in await runtime.list() if container.id == request.id)
        assert (seen.state, seen.pid) == ("running", pid)
        assert (await runtime.run_check(request.id, ["true"], 30_000))[0] == 0
        await runtime.delete(request.id)

    drive(settings, body)


def test_containers_of_one_group_share_a_shim_and_nothing_else(
    settings: RuntimeSettings, image: LoadedImage, containerd: Containerd
) -> None:
    async def body(runtime: Runtime) -> None:
        before = set(shims(containerd.folder))
        requests = [request_for(image, "sleep", "1000", shim_group=group) for group in ("g", "g", "h")]
        pids = []
        for request in requests:
            await runtime.create(request)
            pids.append(await runtime.start(request.id))
        assert len(set(shims(containerd.folder)) - before) == 2
        for kind in ("pid", "ipc", "mnt", "net", "uts"):
            assert len({Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in pids}) == 3
        assert (await runtime.stop(requests[0].id, "KILL", 1000)).exit_code == 137
        await runtime.delete(requests[0].id)
        assert (await runtime.run_check(requests[1].id, ["sh", "-c", "exit 4"], 30_000))[0] == 4
        for request in requests[1:]:
            await runtime.delete(request.id)
        await until(lambda: set(shims(containerd.folder)) <= before)

    drive(settings, body)


def test_processes_in_a_container(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        request = request_for(image, "sleep", "1000", spec=ContainerSpec(user="app"))
        await runtime.create(request)
        await runtime.start(request.id)
        one, other = (f"{7_700_000 + os.getpid()}.{digit}" for digit in "12")  # of nobody else
        async with await runtime.exec(request.id, ["sh", "-c", "cat; id -u; exit 4"], stdin=True) as session:
            await session.send_stdin(b"hello\n")
            await session.close_stdin()
            text = b"".join([data async for _, data in session.outputs()])
            assert (await session.wait(), text) == (4, b"hello\n1000\n")
        async with await runtime.exec(
            request.id, ["sh", "-c", "until stty size | grep -q '30 100'; do sleep 0.05; done"], tty=True
        ) as session:
            await session.resize(100, 30)
            async for _ in session.outputs():
                pass
            assert await session.wait() == 0
        with trio.move_on_after(0.3):
            async with await runtime.exec(request.id, ["sleep", one]) as session:
                await session.wait()
        assert not list((settings.run_folder / "exec").iterdir())
        result = await runtime.run_check(request.id, ["sh", "-c", "echo fine; exit 2"], 30_000)
        assert result == (2, b"fine\n")
        with pytest.raises(errors.TimedOut):
            await runtime.run_check(request.id, ["sleep", other], 300)
        listing = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True).stdout
        assert f"sleep {one}" not in listing.splitlines()
        assert f"sleep {other}" not in listing.splitlines()
        await runtime.delete(request.id)

    drive(settings, body)
