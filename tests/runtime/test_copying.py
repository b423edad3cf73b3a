"""Files copied out of and into real containers, some of which try to lead the copy out of themselves."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from proto.hands_pb2 import CopyFromReply, CopyFromRequest, CopySource, CopyTarget, CopyToReply
from proto.objects_pb2 import ContainerSpec
from runtime.container_files import made_up_devices
from runtime.copying import COPIES_MAX, Copying
from runtime.errors import InvalidRequest, NoSpace, NotFound, NotPossible, RuntimeFailure
from runtime.model import LoadedImage, RuntimeSettings, TmpfsMount
from runtime.runtime import Runtime
from tests.runtime.conftest import drive, request_for

SLEEP = "sleep 100000"
CLOSED_SECONDS_MAX = 5.0


class Box:
    """A running container that is copied from and to."""

    def __init__(self, runtime: Runtime, task_id: str) -> None:
        self.runtime, self.id = runtime, task_id
        self.copying = Copying(runtime)

    async def get(self, path: str, follow: bool = False) -> tuple[CopySource, tarfile.TarFile]:
        replies: list[CopyFromReply] = []

        async def send(reply: CopyFromReply) -> None:
            replies.append(reply)

        await self.copying.copy_from(CopyFromRequest(task_id=self.id, path=path, follow_link=follow), send)
        return replies[0].source, tarfile.open(fileobj=io.BytesIO(b"".join(each.data for each in replies[1:])))

    async def text(self, path: str, follow: bool = False) -> str:
        _, archive = await self.get(path, follow)
        content = archive.extractfile(archive.getmembers()[0])
        assert content is not None
        return content.read().decode()

    async def put(self, path: str, content: bytes | tarfile.TarInfo, name: str = "file", **target: Any) -> CopyToReply:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            entry.size, entry.uid, entry.gid, entry.mode = len(data), 1234, 5678, 0o640
            archive.addfile(entry, io.BytesIO(data))
        parts = [made.getvalue(), b""]

        async def receive() -> bytes:
            return parts.pop(0)

        where = CopyTarget(task_id=self.id, path=path, source=CopySource(name=name), **target)
        return await self.copying.copy_to(where, receive)

    async def run(self, script: str) -> str:
        code, printed = await self.runtime.run_check(self.id, ["sh", "-c", script], 10_000)
        assert code == 0, printed
        return printed.decode().strip()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def in_box(
    settings: RuntimeSettings,
    image: LoadedImage,
    body: Callable[[Box], Awaitable[None]],
    spec: ContainerSpec | None = None,
    **more: Any,
) -> None:
    async def main(runtime: Runtime) -> None:
        request = request_for(image, "sh", "-c", f"mkdir -p /w && touch /w/up && {SLEEP}", spec=spec, **more)
        await runtime.create(request)
        try:
            await runtime.start(request.id)
            before = open_files()
            box = Box(runtime, request.id)
            if spec is None or not spec.read_only:
                while (await runtime.run_check(request.id, ["test", "-e", "/w/up"], 5_000))[0]:
                    await trio.sleep(0.01)
            await body(box)
            with trio.fail_after(CLOSED_SECONDS_MAX):
                while open_files() > before + 1:  # containerd's connection may have come meanwhile
                    await trio.sleep(0.01)
        finally:
            with trio.CancelScope(shield=True):
                await runtime.delete(request.id)

    drive(settings, main)


def test_files_go_in_and_out_with_their_owners(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(box: Box) -> None:
        assert (await box.put("/w", b"one")).files == 1
        assert await box.run("stat -c '%u:%g %a' /w/file; cat /w/file") == "0:0 640\none"
        await box.put("/w/kept", b"two", keep_owner=True)
        assert await box.run("stat -c '%u:%g' /w/kept") == "1234:5678"
        await box.put("w/kept", b"three")  # relative to the root, and over what is there
        assert await box.text("/w/kept") == "three"
        source, archive = await box.get("/w")
        assert (source.name, source.folder) == ("w", True)
        assert sorted(archive.getnames()) == ["w", "w/file", "w/kept", "w/up"]
        source, archive = await box.get("/")
        names = archive.getnames()
        assert "root/w/kept" in names
        assert not any(name.startswith(("root/proc/", "root/sys/")) for name in names)

    in_box(settings, image, body)


def test_links_stay_within_the_container(settings: RuntimeSettings, image: LoadedImage) -> None:
    outside = Path("/etc/fairway-test-escape")

    async def body(box: Box) -> None:
        await box.run(
            "echo inside > /w/hostname; mkdir -p /etc; echo inside > /etc/secret; ln -s /etc /w/etc;"
            "ln -s ../../../../../../etc/secret /w/up-and-out; ln -s /proc/1/root/etc /w/magic; ln -s /w/loop /w/loop;"
            "ln -s /etc/made-by-copy /w/link-to-file; echo old > /etc/made-by-copy"
        )
        assert await box.text("/w/etc/secret") == "inside\n"
        assert await box.text("/w/up-and-out", follow=True) == "inside\n"
        _, archive = await box.get("/w/up-and-out")
        assert archive.getmembers()[0].issym()
        for path in ("/proc/1/root/etc/passwd", "/w/magic/secret", "/proc/self/root/etc/hostname"):
            with pytest.raises(RuntimeFailure):
                await box.get(path)
        with pytest.raises(NotPossible):
            await box.get("/w/loop", follow=True)
        await box.put("/w/etc/fairway-test-escape", b"x")
        assert await box.run("cat /etc/fairway-test-escape") == "x" and not outside.exists()
        await box.put("/w/link-to-file", b"new")  # what the link leads to is written, and the link stays
        assert await box.run("readlink /w/link-to-file; cat /etc/made-by-copy") == "/etc/made-by-copy\nnew"

    try:
        in_box(settings, image, body)
    finally:
        outside.unlink(missing_ok=True)


def test_what_cannot_be_is_said(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(box: Box) -> None:
        with pytest.raises(NotFound, match="/nope: there is no such file"):
            await box.get("/nope")
        with pytest.raises(NotFound, match="no such file or folder"):
            await box.put("/nope/deeper/file", b"")
        with pytest.raises(InvalidRequest, match="leave the slash out"):
            await box.put("/w/new/", b"")
        with pytest.raises(InvalidRequest, match="leads upwards"):
            await box.put("/w", b"", name="../up")
        with pytest.raises(NoSpace, match="no space is left"):
            await box.put("/small", bytes(2 << 20))
        assert await box.run("ls -A /small") == ""

    in_box(settings, image, body, mounts=(TmpfsMount("/small", 1 << 20, 0o755, False),))


def test_a_read_only_root_says_so(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(box: Box) -> None:
        with pytest.raises(NotPossible, match="read-only for the container"):
            await box.put("/", b"x")

    async def main(runtime: Runtime) -> None:
        request = request_for(image, "sleep", "1000", spec=ContainerSpec(read_only=True))
        await runtime.create(request)
        try:
            await runtime.start(request.id)
            await body(Box(runtime, request.id))
        finally:
            await runtime.delete(request.id)

    drive(settings, main)


def test_a_copy_that_breaks_off_leaves_nothing_and_one_too_many_is_refused(
    settings: RuntimeSettings, image: LoadedImage
) -> None:
    async def body(box: Box) -> None:
        header = tarfile.TarInfo("file")
        header.size = 1_000_000
        begun = trio.Event()
        parts: list[bytes | None] = [header.tobuf() + bytes(500_000)]
        pieces: list[bytes | None] = [None, header.tobuf() + bytes(1_000)]

        async def stuck() -> bytes | None:
            if parts:
                return parts.pop()
            begun.set()
            await trio.sleep_forever()
            raise AssertionError("never woken")

        async def broken() -> bytes | None:
            return pieces.pop()

        target = CopyTarget(task_id=box.id, path="/w", source=CopySource(name="file"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.copying.copy_to, target, stuck)
            await begun.wait()
            assert ".fairway-" in await box.run("ls -A /w")
            nursery.cancel_scope.cancel()  # as when the client disappears
        assert await box.run("ls -A /w") == "up"
        with pytest.raises(InvalidRequest, match="broke off"):
            await box.copying.copy_to(target, broken)
        assert await box.run("ls -A /w") == "up"

        async with trio.open_nursery() as nursery:
            for _ in range(COPIES_MAX):
                nursery.start_soon(box.copying.copy_to, target, trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(NotPossible, match=f"makes {COPIES_MAX} copies already"):
                await box.text("/w/up")
            nursery.cancel_scope.cancel()
        assert await box.text("/w/up") == ""

    in_box(settings, image, body)


def test_the_end_of_the_task_ends_its_copies(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(box: Box) -> None:
        async def end(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            await box.runtime.stop(box.id, "KILL", 100)

        target = CopyTarget(task_id=box.id, path="/w", source=CopySource(name="file"))
        async with trio.open_nursery() as nursery:
            await nursery.start(end)
            with pytest.raises(NotFound):
                await box.copying.copy_to(target, trio.sleep_forever)

    in_box(settings, image, body)


def test_file_systems_that_the_kernel_makes_up_are_known() -> None:
    text = (
        "22 1 0:21 / /proc rw,nosuid shared:1 - proc proc rw\n"
        "23 1 0:22 / /sys rw - sysfs sysfs rw\n"
        "24 1 253:1 / / rw shared:2 master:1 - ext4 /dev/root rw\n"
    )
    assert made_up_devices(text) == {os.makedev(0, 21), os.makedev(0, 22)}
