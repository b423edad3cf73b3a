"""What containerd keeps for images, counted and collected: what is needed, or not ours, stays."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from daemon.agent.host_view import HostView
from daemon.agent.image_agent import ImageAgent
from daemon.agent.reports import Reports
from daemon.config import Config, ContainerdConfig, GarbageConfig, HostConfig, LogsConfig, StorageConfig
from daemon.doctor.metrics import Registry
from daemon.garbage import collector as collecting
from daemon.garbage.collector import Collector
from daemon.garbage.room import Room
from proto import garbage_pb2 as messages
from proto import objects_pb2 as objects
from proto.host_pb2 import HostItem, HostState
from runtime.errors import Unavailable
from runtime.image_space import layer_part
from runtime.model import LoadedImage, RuntimeSettings
from runtime.runtime import Runtime
from storage.volumes import LocalVolumes
from tests.runtime import image_builder
from tests.runtime.conftest import Containerd, drive, new_id, request_for, until
from tests.runtime.test_disk_full import small_containerd

OWN_BYTES = 3 << 20


def archive(folder: Path, name: str, own_bytes: int = OWN_BYTES) -> Path:
    """busybox, and a layer of its own."""
    own = image_builder.layer({f"{name}.bin": (os.urandom(own_bytes), 0o644)}, {}, {})
    layers = [*image_builder.busybox_layers(), own]
    return image_builder.oci_layout(folder / f"{name}.tar", f"local/{name}:1", layers=layers)


async def load(runtime: Runtime, path: Path) -> LoadedImage:
    image = (await runtime.images.load_archive(path))[0]
    await runtime.images.unpack(image.manifest_digest)
    return image


def test_layers_are_packed_again_unless_another_image_or_a_container_has_them(
    settings: RuntimeSettings, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, namespace=f"gb{os.getpid()}")
    foreign = dataclasses.replace(settings, namespace="fairway", run_folder=tmp_path / "other")
    first, second = archive(tmp_path, "first"), archive(tmp_path, "second")

    async def of_another(runtime: Runtime) -> tuple[str, str]:
        other = await load(runtime, second)
        return other.manifest_digest, await runtime.images.unpack(other.manifest_digest)

    async def body(runtime: Runtime) -> None:
        one, two = await load(runtime, first), await load(runtime, second)
        space = await runtime.spaces.look()
        held = {image.digest: image for image in space.images}
        assert set(held) == {one.manifest_digest, two.manifest_digest}
        assert sum(held[one.manifest_digest].blobs.values()) == one.size_bytes
        shared = held[one.manifest_digest].snapshots.keys() & held[two.manifest_digest].snapshots.keys()
        assert shared and len(held[one.manifest_digest].snapshots) == len(shared) + 1
        assert sum(held[one.manifest_digest].snapshots.values()) > OWN_BYTES
        assert not space.loose and not space.writing and not space.containers
        assert not held[one.manifest_digest].blobs.keys() & held[one.manifest_digest].snapshots.keys()

        await runtime.spaces.pack(one.manifest_digest)
        held = {image.digest: image for image in (await runtime.spaces.look()).images}
        assert (
            held[one.manifest_digest].snapshots.keys() == shared == held[two.manifest_digest].snapshots.keys() & shared
        )
        assert len(held[two.manifest_digest].snapshots) == len(shared) + 1

        request = request_for(two, "sleep", "100")
        await runtime.create(request)
        try:
            await runtime.start(request.id)
            await runtime.spaces.pack(two.manifest_digest)
            space = await runtime.spaces.look()
            assert space.containers.keys() >= shared and len(space.containers) == len(shared) + 1
        finally:
            await runtime.delete(request.id)
        await runtime.images.remove(one.manifest_digest)
        await runtime.images.remove(two.manifest_digest)

    other_digest, other_top = drive(foreign, of_another)
    drive(settings, body)

    async def still_there(runtime: Runtime) -> None:
        assert await runtime.images.has(other_digest)
        held = next(image for image in (await runtime.spaces.look()).images if image.digest == other_digest)
        assert layer_part(other_top) in held.snapshots
        await runtime.images.remove(other_digest)

    drive(foreign, still_there)


def test_parts_of_a_pull_are_dropped_only_when_it_is_over(settings: RuntimeSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings, namespace=f"gp{os.getpid()}")
    path = archive(tmp_path, "parts")

    async def body(runtime: Runtime) -> None:
        image = (await runtime.images.load_archive(path))[0]
        space = await runtime.spaces.look()
        blobs = {
            digest: b"".join([data async for data in runtime.images.read_blob(digest)])
            for digest in space.images[0].blobs
        }
        await runtime.images.remove(image.manifest_digest)
        biggest = max(blobs, key=lambda digest: len(blobs[digest]))
        waiting, going_on = trio.Event(), trio.Event()

        async def fetch(digest: str) -> AsyncIterator[bytes]:
            if digest == biggest:
                waiting.set()
                await going_on.wait()
                raise Unavailable("the registry is gone")
            yield blobs[digest]

        async def pull() -> None:
            with pytest.raises(Unavailable):
                await runtime.images.import_blobs("parts", image.manifest_digest, fetch, keep_part=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull)
            await waiting.wait()
            during = await runtime.spaces.look()
            assert during.writing and during.loose
            await runtime.spaces.drop_loose()  # nobody plans it; and even then it takes nothing
            assert (await runtime.spaces.look()).loose == during.loose
            going_on.set()
        after = await runtime.spaces.look()
        assert not after.writing and after.loose == during.loose and len(after.idle_leases) == 1
        await runtime.spaces.drop_loose()
        after = await runtime.spaces.look()
        assert not after.loose and not after.idle_leases

    drive(settings, body)


@pytest.fixture
def small() -> Iterator[Containerd]:
    with small_containerd(48 << 20) as server:
        yield server


class Tasks:
    def busy_with(self, task_id: str) -> bool:
        return False

    def settled(self) -> bool:
        return True


def test_a_disk_that_fills_is_collected_down_to_the_low_watermark(
    small: Containerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOK_S", 0.1)
    monkeypatch.setattr(collecting, "FRUITLESS_S", 0.2)
    monkeypatch.setattr("daemon.garbage.garbage_plan.PRESSURE_UNUSED_MS_MIN", 0)
    folder = small.folder
    settings = RuntimeSettings(folder / "c.sock", folder / "runc", tmp_path / "logs", tmp_path / "run")
    config = Config(
        host=HostConfig(state_folder=tmp_path / "state"),
        containerd=ContainerdConfig(socket=folder / "c.sock"),
        storage=StorageConfig(volumes_folder=tmp_path / "volumes"),
        logs=LogsConfig(folder=tmp_path / "logs"),
        garbage=GarbageConfig(high_percent=85, low_percent=75),
    )
    config.host.state_folder.mkdir()
    paths = [archive(tmp_path, name) for name in ("older", "newer", "needed")]
    ballast = folder / "root" / "ballast"

    def used_percent() -> float:
        status = os.statvfs(folder / "root")
        used = status.f_blocks - status.f_bfree
        return 100 * used / (used + status.f_bavail)

    async def body(runtime: Runtime) -> None:
        loaded = [await load(runtime, path) for path in paths]
        view, reports, room = HostView(), Reports(), Room(85, 75)
        items = []
        for number, image in enumerate(loaded):
            known = objects.Image(manifest_digest=image.manifest_digest, size_bytes=image.size_bytes)
            known.meta.id, known.meta.name = f"image{number}", image.name
            items.append(HostItem(key=f"image/image{number}", image=known))
        task = objects.Task(image_digest=loaded[2].manifest_digest)
        task.meta.id = new_id()
        items.append(HostItem(key=f"task/{task.meta.id}", task=task))
        view.apply(HostState(complete=True, revision=1, put=items))
        images = ImageAgent(runtime.images, runtime.spaces, view, None, reports, room, "own")  # type: ignore[arg-type]
        subject = SimpleNamespace(runtime=runtime, view=view, identity=SimpleNamespace(node_id="own"))
        metrics = Registry()
        volumes = LocalVolumes(config.storage.volumes_folder)
        clock = [1_000]
        collector = Collector(config, subject, volumes, images, reports, Tasks(), metrics, lambda: clock[0])  # type: ignore[arg-type]

        async def layers() -> list[bool]:
            held = {image.digest: image for image in (await runtime.spaces.look()).images}
            return [len(held[image.manifest_digest].snapshots) > 2 for image in loaded]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.run)
            await until(lambda: room.folders)
            assert str(folder / "root") in str(room.folders[0])
            assert await layers() == [True, True, True]
            collector._unused_unix_ms.update({loaded[0].manifest_digest: 500, loaded[1].manifest_digest: 700})
            low, high = 0, 48 << 20
            while used_percent() < 85:  # as full as it takes, and no fuller
                low += 256 << 10
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, low)
                assert low < high
            await until(lambda: used_percent() < 85)
            with trio.fail_after(60):
                while await layers() == [True, True, True]:
                    await trio.sleep(0.05)
            await until(lambda: used_percent() <= 85 - 100 * OWN_BYTES / (48 << 20) + 1)
            await until(lambda: not collector._collecting.locked())
            assert (await layers())[2], "what a task needs stays"
            assert not (await layers())[0], "the longest unused goes first"
            assert 'fairway_garbage_removed_total{kind="unpacked"}' in metrics.text()
            assert not room.has(loaded[0].manifest_digest, 20 << 20)

            with ballast.open("wb") as file:  # what nobody can free is said
                os.posix_fallocate(file.fileno(), 0, low + (7 << 20))
            await until(lambda: reports._all_conditions())
            message = reports._all_conditions()[0].message
            assert "more than 85 % is used" in message and "tasks here need them" in message
            assert await layers() == [False, False, True]
            told = await collector.space(with_items=True)
            assert {kind.kind: kind.count for kind in told.kinds}["image"] == 3
            assert any(item.needed_by == "tasks here need them" for item in told.items)

            ballast.unlink()
            await until(lambda: not reports._all_conditions())
            planned = await collector.collect(messages.CollectGarbageRequest(plan_only=True))
            await runtime.images.unpack(loaded[0].manifest_digest)
            asked = await collector.collect(messages.CollectGarbageRequest())
            assert len(asked.removed) == len(planned.removed) + 1 and asked.freed_bytes > OWN_BYTES
            assert await layers() == [False, False, True]
            nursery.cancel_scope.cancel()

    drive(settings, body)


def test_the_folders_of_containerd_are_asked_for(settings: RuntimeSettings, containerd: Containerd) -> None:
    async def body(runtime: Runtime) -> None:
        found = await runtime.spaces.folders()
        assert {path.name for path in found} == {
            "io.containerd.content.v1.content",
            "io.containerd.snapshotter.v1.overlayfs",
        }
        assert all(containerd.folder in path.parents for path in found)

    drive(settings, body)
