"""Containers whose root is nobody on the host: what they see, what they leave, and that nothing else is different."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import trio

from proto.hands_pb2 import CopyTarget
from proto.objects_pb2 import ContainerSpec, Isolation, Resources
from runtime import errors, user_namespaces
from runtime.copying import Copying
from runtime.id_map import IdMap
from runtime.model import BindMount, ContainerRequest, LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from tests.runtime.conftest import Containerd, drive, mounts, output_of, request_for

FIRST = 1_900_019_712
PRIVATE = ContainerSpec(isolation=Isolation(user_namespace=True))


@pytest.fixture
def shifted(settings: RuntimeSettings, containerd: Containerd) -> RuntimeSettings:
    containerd.folder.chmod(0o711)  # as /run/containerd is: their roots pass through it
    return dataclasses.replace(settings, user_ids_first=FIRST)


def file(path: Path, text: str, uid: int, mode: int) -> Path:
    path.write_text(text)
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


async def copy(runtime: Runtime, task_id: str, folder: str) -> None:
    """Copies a file into a container."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("copied")
        entry.size = len(b"a copy")
        tar.addfile(entry, io.BytesIO(b"a copy"))
    chunks = [archive.getvalue(), b""]

    async def receive() -> bytes:
        return chunks.pop(0)

    await Copying(runtime).copy_to(CopyTarget(task_id=task_id, path=folder), receive)


def test_root_within_is_nobody_on_the_host(shifted: RuntimeSettings, image: LoadedImage, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o755)
    file(volume / "before", "of the volume", 0, 0o600)
    secret = file(tmp_path / "secret", "hidden", 1000, 0o400)
    network = tmp_path / "network"
    looks = (
        "id -u; busybox stat -c %u:%g / /bin /data /data/before; cat /data/before; echo; echo new > /data/after;"
        "echo own > /own; busybox chown 1000 /own; mount -t tmpfs none /mnt 2>&1 || echo no mount;"
        "cat /proc/self/uid_map; echo opened again > /dev/stdout; until [ -f /tmp/go ]; do sleep 0.05; done"
    )

    async def body(runtime: Runtime) -> None:
        make_network = runtime.network_maker(PRIVATE)
        assert make_network is not None
        await trio.to_thread.run_sync(make_network, network)
        request = request_for(
            image,
            "sh",
            "-c",
            looks,
            spec=PRIVATE,
            network_namespace=network,
            mounts=(BindMount(volume, "/data", identity=_identity(volume)),),
            files=(BindMount(secret, "/run/secrets/one", read_only=True),),
        )
        await runtime.create(request)
        process_id = await runtime.start(request.id)
        lines: list[str] = []
        async for line in runtime.read_log(request.id, follow=True):
            lines.append(line.text.decode())
            if lines[-1] == "opened again":
                break
        assert lines[:6] == ["0", "0:0", "0:0", "0:0", "0:0", "of the volume"]
        assert f"0 {FIRST} 65536" in [" ".join(line.split()) for line in lines]
        assert Path(f"/proc/{process_id}").stat().st_uid == FIRST
        assert (volume / "after").stat().st_uid == 0  # as without a user namespace: volumes go from one to the other
        assert Path(f"/proc/{process_id}/root/own").stat().st_uid == FIRST + 1000
        assert IdMap.of_process(process_id, "uid").inside(FIRST + 1000) == 1000
        app = await runtime.exec(request.id, ["cat", "/run/secrets/one"], user="1000")
        async with app:
            assert b"".join([data async for _, data in app.outputs()]) == b"hidden"
        nobody = await runtime.exec(request.id, ["cat", "/run/secrets/one"], user="1001")
        async with nobody:
            assert b"ermission" in b"".join([data async for _, data in nobody.outputs()])
        terminal = await runtime.exec(request.id, ["sh", "-c", "echo on > /dev/tty && stty size"], tty=True)
        async with terminal:
            assert b"on" in b"".join([data async for _, data in terminal.outputs()])
        await copy(runtime, request.id, "/data")
        assert ((volume / "copied").stat().st_uid, (volume / "copied").read_text()) == (0, "a copy")
        await copy(runtime, request.id, "/bin")
        assert Path(f"/proc/{process_id}/root/bin/copied").stat().st_uid == FIRST
        Path(f"/proc/{process_id}/root/tmp/go").touch()
        assert (await runtime.wait(request.id)).exit_code == 0
        await runtime.delete(request.id)
        assert not mounts(shifted.run_folder)
        assert not list((shifted.run_folder / "staged").iterdir())
        assert await output_of(runtime, request_for(image, "busybox", "stat", "-c", "%u", "/bin")) == (0, "0")

    try:
        drive(shifted, body)
    finally:
        subprocess.run(["umount", network], check=True)


def test_a_host_says_what_keeps_it_from_that(tmp_path: Path) -> None:
    assert user_namespaces.check(FIRST, tmp_path / "volumes") == ""
    assert not list((tmp_path / "volumes").iterdir())
    assert user_namespaces.check(0, tmp_path).startswith("containerd.user_ids_first is 0;")
    assert "proc" in user_namespaces.check(FIRST, Path("/proc/sys"))


def test_what_a_daemon_left_is_taken_away_and_no_data_with_it(tmp_path: Path) -> None:
    volume, folder = tmp_path / "volume", tmp_path / "a b"
    (volume / "deep").mkdir(parents=True)
    single = file(volume / "deep/file", "kept", 0, 0o600)
    request = ContainerRequest(
        "one", "sha256:0", PRIVATE, Resources(), mounts=(BindMount(volume, "/data"), BindMount(single, "/one"))
    )
    staging = user_namespaces.Staging(FIRST, folder)
    staged = user_namespaces.Stage(user_namespaces.UserNamespace(FIRST), folder / "one").prepare(request)
    sources = [mount.source for mount in staged.mounts if isinstance(mount, BindMount)]
    assert [(source / "deep/file" if source.is_dir() else source).stat().st_uid for source in sources] == [FIRST, FIRST]
    staging.clear()
    assert not list(folder.iterdir())
    assert single.read_text() == "kept"


def test_a_host_without_a_range_refuses(settings: RuntimeSettings, image: LoadedImage) -> None:
    async def body(runtime: Runtime) -> None:
        with pytest.raises(errors.MissingFeature, match="user_ids_first"):
            await runtime.create(request_for(image, "true", spec=PRIVATE))

    drive(settings, body)


def _identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino
