"""Containers that share process ids or IPC with another one: they see each other, and each ends alone or with it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from proto.objects_pb2 import ContainerSpec, Isolation, Resources
from runtime import cgroup, errors, joining
from runtime import mount_trees as trees
from runtime.model import ContainerRequest, Joins, LoadedImage, RuntimeSettings
from runtime.processes import processes_of
from runtime.runtime import Runtime
from runtime.usage import usage_of
from tests.runtime.conftest import Containerd, drive, mounts, request_for, until

# Passes a signal on to what shows that it came, and ends by none that it is not sent.
OWNER = "trap 'echo signalled > /dev/shm/told' USR1; echo of the owner > /dev/shm/first; while :; do sleep 0.05; done"
BESIDE = "sleep 1000 & sleep 1001 & wait"
BESIDE_ALL = [f"sh -c {BESIDE}", "sleep 1000", "sleep 1001"]
BOTH = (joining.PROCESSES, joining.IPC)


@contextlib.asynccontextmanager
async def running(runtime: Runtime, request: ContainerRequest) -> AsyncIterator[int]:
    await runtime.create(request)
    try:
        yield await runtime.start(request.id)
    finally:
        with trio.CancelScope(shield=True):
            await runtime.delete(request.id)


@contextlib.asynccontextmanager
async def owning(runtime: Runtime, request: ContainerRequest) -> AsyncIterator[int]:
    """OWNER, which has got as far as its loop."""
    async with running(runtime, request) as process_id:
        first = Path(f"/proc/{process_id}/root/dev/shm/first")
        await until(lambda: first.exists() and first.read_text().endswith("\n"))
        yield process_id


async def said(runtime: Runtime, request: ContainerRequest, *command: str) -> str:
    code, output = await runtime.run_check(request.id, command, 30_000)
    return f"{output.decode().strip()}{f' ({code})' if code else ''}"


def beside(image: LoadedImage, owner: ContainerRequest, kinds: Sequence[str] = BOTH, **more: Any) -> ContainerRequest:
    return request_for(image, "sh", "-c", BESIDE, joined=Joins(owner.id, tuple(kinds)), **more)


def commands(runtime: Runtime, container_id: str) -> list[str]:
    """Of all its processes."""
    found = []
    for each in members(runtime, container_id):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
    return sorted(found)


def namespace(process_id: int, kind: str) -> str:
    return str(Path(f"/proc/{process_id}/ns/{kind}").readlink())


def members(runtime: Runtime, container_id: str) -> list[int]:
    """Of its control group."""
    for group in runtime.groups.of(container_id):
        with contextlib.suppress(OSError):
            if found := (group / "cgroup.procs").read_text().split():
                return sorted(map(int, found))
    return []


def test_processes_signals_and_memory_are_shared_and_nothing_else(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    async def body(runtime: Runtime) -> None:
        owner = request_for(image, "sh", "-c", OWNER, spec=ContainerSpec(shm_size_bytes=1 << 20))
        async with owning(runtime, owner) as first:
            side = beside(image, owner, spec=ContainerSpec(init=False), resources=Resources(pids_limit=30))
            async with running(runtime, side) as second:
                await until(lambda: commands(runtime, side.id) == BESIDE_ALL)
                kinds = {
                    kind: namespace(first, kind) == namespace(second, kind)
                    for kind in ("pid", "ipc", "net", "mnt", "uts")
                }
                assert kinds == {"pid": True, "ipc": True, "net": False, "mnt": False, "uts": False}
                assert "of the owner" in await said(runtime, side, "ps")
                assert "sleep 1001" in await said(runtime, owner, "ps")
                assert await said(runtime, side, "cat", "/dev/shm/first") == "of the owner"
                assert "1.0M" in await said(runtime, side, "busybox", "df", "-h", "/dev/shm")
                await said(runtime, side, "sh", "-c", "echo back > /dev/shm/second; kill -USR1 1")
                assert await said(runtime, owner, "cat", "/dev/shm/second") == "back"
                segment = ["nsenter", "-t", str(first), "--ipc", "ipcmk", "--shmem", "4096"]
                await trio.run_process(segment, capture_stdout=True)
                assert "4096" in await said(runtime, side, "cat", "/proc/sysvipc/shm")
                told = Path(f"/proc/{first}/root/dev/shm/told")
                await until(told.exists)
                # What each of them is asked for is its own.
                own = [each.command for each in (await processes_of(runtime, side.id)).processes]
                assert sorted(own) == BESIDE_ALL
                (usage,) = await usage_of(runtime, {side.id})
                assert usage.processes == 3
                assert cgroup.first_process(runtime.groups.of(side.id)) == second
            assert await runtime.first_process(owner.id) == first
            assert Path(f"/proc/{first}").exists()
        assert mounts(settings.run_folder) == []
        assert not list((settings.run_folder / "staged").iterdir())

    drive(settings, body)


@pytest.mark.parametrize("how", ["signal", "grace over", "delete"])
def test_its_end_takes_all_of_its_processes_and_no_other(
    settings: RuntimeSettings, image: LoadedImage, how: str
) -> None:
    async def body(runtime: Runtime) -> None:
        owner = request_for(image, "sh", "-c", OWNER)
        async with owning(runtime, owner) as first:
            side = beside(image, owner)
            async with running(runtime, side):
                await until(lambda: commands(runtime, side.id) == BESIDE_ALL)
                mine = members(runtime, side.id)
                others = members(runtime, owner.id)
                if how == "delete":
                    await runtime.delete(side.id)
                else:
                    signal = "TERM" if how == "signal" else "WINCH"
                    ended = await runtime.stop(side.id, signal, 30_000 if how == "signal" else 200)
                    assert ended.exit_code == (143 if how == "signal" else 137)
                await until(lambda: not any(Path(f"/proc/{each}").exists() for each in mine))
                assert first in others
                assert await runtime.first_process(owner.id) == first

    drive(settings, body)


def test_the_end_of_the_owner_ends_those_who_share_its_processes_and_not_those_who_share_its_ipc(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    async def body(runtime: Runtime) -> None:
        owner = request_for(image, "sh", "-c", OWNER)
        async with owning(runtime, owner):
            side, memory = beside(image, owner), beside(image, owner, (joining.IPC,))
            async with running(runtime, side), running(runtime, memory) as third:
                await runtime.signal(owner.id, "KILL")
                assert (await runtime.wait(side.id)).exit_code == 137
                assert (await runtime.wait(owner.id)).exit_code == 137
                assert await runtime.first_process(memory.id) == third
                assert await said(runtime, memory, "cat", "/dev/shm/first") == "of the owner"
                with pytest.raises(errors.NotFound, match="does not run"):
                    await runtime.create(beside(image, owner))

    drive(settings, body)


def test_an_init_beside_the_owners_takes_in_what_its_children_leave(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    async def body(runtime: Runtime) -> None:
        owner = request_for(image, "sh", "-c", OWNER)
        async with owning(runtime, owner):
            side = beside(image, owner, (joining.PROCESSES,), spec=ContainerSpec(init=True))
            async with running(runtime, side) as second:
                assert await said(runtime, side, "sh", "-c", "(sleep 0.1 &) ; echo gone") == "gone"
                await until(lambda: len(members(runtime, side.id)) == 4)  # the init, its shell and two that sleep
                arguments = Path(f"/proc/{second}/cmdline").read_bytes().split(b"\0")
                assert arguments[1:3] == [b"-s", b"--"]
                assert (await runtime.stop(side.id, "TERM", 30_000)).exit_code == 143

    drive(settings, body)


def test_with_user_namespaces_both_have_one(
    settings: RuntimeSettings, containerd: Containerd, image: LoadedImage, tmp_path: Path
) -> None:
    containerd.folder.chmod(0o711)
    shifted = dataclasses.replace(settings, user_ids_first=1_900_019_712)
    private = ContainerSpec(isolation=Isolation(user_namespace=True))
    networks = tmp_path / "first", tmp_path / "second"

    async def body(runtime: Runtime) -> None:
        make = runtime.network_maker(private)
        assert make is not None
        await trio.to_thread.run_sync(make, networks[0])
        owner = request_for(image, "sh", "-c", OWNER, spec=private, network_namespace=networks[0])
        async with owning(runtime, owner) as first:
            async with joining.network_maker(owner.id, runtime.first_process) as beside_it:
                await trio.to_thread.run_sync(beside_it, networks[1])
            kinds = (*BOTH, joining.USERS)
            for network in (networks[1], None):
                side = beside(image, owner, kinds, spec=private, network_namespace=network)
                async with running(runtime, side) as second:
                    assert all(namespace(first, each) == namespace(second, each) for each in ("pid", "ipc", "user"))
                    assert namespace(first, "net") != namespace(second, "net")
                    assert await said(runtime, side, "cat", "/dev/shm/first") == "of the owner"
                    await said(runtime, side, "sh", "-c", "echo back > /dev/shm/second")
                    assert await said(runtime, owner, "cat", "/dev/shm/second") == "back"
                    assert "of the owner" in await said(runtime, side, "ps")
                    assert (await runtime.stop(side.id, "TERM", 30_000)).exit_code == 143
        assert mounts(settings.run_folder) == []

    try:
        drive(shifted, body)
    finally:
        for network in networks:
            trees.unmount(network)
