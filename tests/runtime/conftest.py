"""A containerd for the session, and the runtime that the tests drive."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from lab import cgroups
from proto import grpc_trio, objects_pb2
from runtime.fifo_keeper import FifoKeeper
from runtime.model import ContainerRequest, LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime import image_builder

T = TypeVar("T")
CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "{folder}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
"""


class Containerd:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "c.sock"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))

    def start(self, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a program that becomes containerd."""
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [*prefix, "containerd", "-c", str(self.folder / "config.toml"), "-l", "warn"],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stands_still(self) -> bool:
        """Whether all of its threads have noticed a SIGSTOP."""
        assert self.process is not None
        try:
            stats = [path.read_text() for path in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
        except OSError:  # of a thread that ends
            return False
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    folder = Path(tempfile.mkdtemp(prefix="fwrt-"))
    server = Containerd(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill(signal.SIGTERM)
        end_leftovers(folder)
        remove_mounts(folder)
        assert not cgroups.remove(f"/{folder.name}", timeout_seconds=60)
        shutil.rmtree(folder, ignore_errors=True)


def shims(folder: Path, *, serving: bool = True) -> list[int]:
    """Process ids of the shims that serve this containerd; else with those that start or end one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            passing = b"start" in words or b"delete" in words
            ours = b"containerd-shim" in words[0] and any(str(folder).encode() in word for word in words)
            if ours and not (serving and passing):
                found.append(int(entry.name))
    return found


def end_leftovers(folder: Path) -> None:
    """Returns when they have ended: they write to the folder."""
    deadline = time.monotonic() + 30
    while left := shims(folder, serving=False):
        assert time.monotonic() < deadline, f"shims that do not end: {left}"
        for process_id in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(0.01)


def mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(str(folder))]


def remove_mounts(folder: Path) -> None:
    for target in reversed(mounts(folder)):
        subprocess.run(["umount", "-l", target], check=False)


@pytest.fixture
def settings(containerd: Containerd, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(
        socket=containerd.socket,
        runc_root=containerd.folder / "runc",
        log_folder=tmp_path / "logs",
        run_folder=tmp_path / "run",
        cgroup_parent=f"/{containerd.folder.name}",
    )


def drive(
    settings: RuntimeSettings,
    body: Callable[[Runtime], Awaitable[T]],
    keeper: FifoKeeper | None = None,
    seconds: float = 120,
) -> T:
    """Runs `body` with a runtime that is connected."""

    async def main() -> T:
        async with trio.open_nursery() as nursery:
            runtime = Runtime(settings, keeper)
            await nursery.start(runtime.run)
            try:
                with trio.fail_after(seconds):
                    await runtime.wait_healthy()
                    return await body(runtime)
            finally:
                nursery.cancel_scope.cancel()
        raise AssertionError("not reached")

    try:
        return grpc_trio.run(main)
    except* Exception as group:
        raise leaf(group) from None


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.fixture(scope="session")
def image(containerd: Containerd) -> LoadedImage:
    """busybox, loaded once."""
    settings = RuntimeSettings(
        socket=containerd.socket,
        runc_root=containerd.folder / "runc",
        log_folder=containerd.folder / "logs",
        run_folder=containerd.folder / "run",
    )
    path = image_builder.oci_layout(containerd.folder / "image.tar")

    async def load(runtime: Runtime) -> LoadedImage:
        loaded = (await runtime.images.load_archive(path))[0]
        await runtime.images.unpack(loaded.manifest_digest)
        return loaded

    return drive(settings, load)


_numbers = itertools.count()


def new_id() -> str:
    return f"t{os.getpid()}x{next(_numbers)}x{time.monotonic_ns() % 1_000_000}"


def request_for(
    image: LoadedImage,
    *command: str,
    spec: objects_pb2.ContainerSpec | None = None,
    resources: objects_pb2.Resources | None = None,
    **more: object,
) -> ContainerRequest:
    made = objects_pb2.ContainerSpec(image=image.name)
    if spec is not None:
        made.MergeFrom(spec)
    if command:
        made.command.values.extend(command)
    return ContainerRequest(
        id=new_id(),
        image_digest=image.manifest_digest,
        spec=made,
        resources=resources or objects_pb2.Resources(),
        **more,  # type: ignore[arg-type]
    )


async def output_of(runtime: Runtime, request: ContainerRequest) -> tuple[int, str]:
    """Runs a container to its end; gives its exit code and all it printed, and removes it."""
    await runtime.create(request)
    try:
        await runtime.start(request.id)
        ended = await runtime.wait(request.id)
        lines = [line async for line in runtime.read_log(request.id, follow=True)]
        return ended.exit_code, "\n".join(line.text.decode() for line in lines)
    finally:
        with trio.CancelScope(shield=True):
            await runtime.delete(request.id)


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Looks again and again until it holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)
