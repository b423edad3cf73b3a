"""Volumes, bind mounts and what a task's mounts come to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from proto.objects_pb2 import Mount
from storage import errors, mount_plan
from storage.bind_mounts import CheckedSource, allowed_source
from storage.mount_plan import BindNeed, TmpfsNeed, VolumeNeed
from storage.population import populate
from storage.volumes import LocalVolumes, PreparedMount

VOLUME, BIND, TMPFS = Mount.Kind.KIND_VOLUME, Mount.Kind.KIND_BIND, Mount.Kind.KIND_TMPFS


def test_mounts_become_needs_outer_ones_first() -> None:
    needs = mount_plan.plan(
        [
            Mount(kind=TMPFS, target="/a/b/c/", tmpfs_size_bytes=5),
            Mount(kind=VOLUME, source="data", target="/a", read_only=True),
            Mount(kind=BIND, source="/srv", target="/a/b"),
        ],
        ["/a", "/image"],
    )
    assert needs == [
        VolumeNeed("data", "/a", True),
        VolumeNeed("", "/image"),
        BindNeed("/srv", "/a/b"),
        TmpfsNeed("/a/b/c", 5),
    ]


@pytest.mark.parametrize(
    "mounts",
    [
        [Mount(kind=TMPFS, target="relative")],
        [Mount(kind=TMPFS, target="/")],
        [Mount(kind=TMPFS, target="/a/..")],
        [Mount(kind=TMPFS, target="/a"), Mount(kind=TMPFS, target="/a/")],
        [Mount(kind=BIND, source="relative", target="/a")],
        [Mount(kind=VOLUME, source="a/b", target="/a")],
        [Mount(target="/a")],
        [Mount(kind=VOLUME, target="/a", subpath="x")],
        [Mount(kind=VOLUME, source="data", target="/a", subpath="x/../../y")],
        [Mount(kind=VOLUME, source="data", target="/a", subpath="/x")],
    ],
)
def test_mounts_that_contradict_are_refused(mounts: list[Mount]) -> None:
    with pytest.raises(errors.InvalidMount):
        mount_plan.plan(mounts)


def test_bind_mounts_are_allowed_below_prefixes_only(tmp_path: Path) -> None:
    inside = tmp_path / "allowed" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (inside / "way-out").symlink_to(tmp_path / "secret")
    allowed = (tmp_path / "allowed",)
    info = inside.stat()
    assert allowed_source(str(inside), allowed) == CheckedSource(inside, info.st_dev, info.st_ino)
    for source in (inside / "way-out", tmp_path / "secret", tmp_path / "allowed-not", inside / "../.."):
        with pytest.raises(errors.NotAllowed, match=r"storage\.allowed_bind_mounts"):
            allowed_source(str(source), allowed)
    with pytest.raises(errors.NotFound):
        allowed_source(str(inside / "lacking"), allowed)


def test_a_volume_lives_until_it_is_removed(tmp_path: Path) -> None:
    async def body() -> None:
        volumes = LocalVolumes(tmp_path / "volumes")
        path = await volumes.ensure("v1", "shop", "data")
        (path / "kept").touch()
        assert (await volumes.ensure("v1", "shop", "data") / "kept").exists()
        needs = mount_plan.plan([Mount(kind=VOLUME, source="data", target="/data")], ["/scratch"])
        prepared = await volumes.prepare("task1", "shop", needs, {"data": "v1"})
        assert [mount.wants_image_content for mount in prepared] == [False, True]
        assert len(await volumes.list()) == 2
        await volumes.remove_anonymous("task1")
        assert [volume.name for volume in await volumes.list()] == ["data"]
        await volumes.remove("v1")
        await volumes.remove("v1")
        assert not await volumes.list()
        with pytest.raises(errors.NotFound):
            await volumes.prepare("task1", "shop", needs, {})
        with pytest.raises(errors.InvalidMount):
            volumes.path("../etc")

    trio.run(body)


def test_a_fresh_volume_gets_the_images_content(tmp_path: Path) -> None:
    root, volume = tmp_path / "root", tmp_path / "volume"
    (root / "real" / "sub").mkdir(parents=True)
    (root / "real").chmod(0o750)
    (root / "real" / "sub" / "file").write_text("text")
    os.chown(root / "real" / "sub" / "file", 5, 6)
    (root / "real" / "link").symlink_to("/etc/passwd")
    (root / "data").symlink_to("/real")
    volume.mkdir()
    assert populate(volume, root, "/data")
    info = (volume / "sub" / "file").stat()
    assert (info.st_uid, info.st_gid) == (5, 6)
    assert (volume / "link").is_symlink()
    assert volume.stat().st_mode & 0o777 == 0o750
    assert not populate(volume, root, "/data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "volume"]


def test_a_volume_that_does_not_fit_stays_empty(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "sub" / "big").write_bytes(bytes(512 * 1024))
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        (disk / "volume").mkdir()
        with pytest.raises(errors.NoSpace, match="full"):
            populate(disk / "volume", root, "/data")
        assert [path.name for path in disk.iterdir()] == ["volume"]
        assert not list((disk / "volume").iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_prepared_bind_mount_says_which_file_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    volumes = LocalVolumes(tmp_path / "volumes", (tmp_path,))
    needs = mount_plan.plan([Mount(kind=BIND, source=str(file), target="/a", read_only=True)])

    async def body() -> None:
        (prepared,) = await volumes.prepare("task1", "shop", needs, {})
        info = file.stat()
        assert prepared == PreparedMount("/a", file, True, identity=(info.st_dev, info.st_ino))

    trio.run(body)


def test_a_part_of_a_volume_is_mounted_and_never_what_a_link_in_it_leads_to(tmp_path: Path) -> None:
    volumes = LocalVolumes(tmp_path / "volumes")

    def needs(subpath: str) -> list[mount_plan.Need]:
        return mount_plan.plan([Mount(kind=VOLUME, source="data", target="/a", subpath=subpath)])

    async def body() -> None:
        data = await volumes.ensure("v1", "shop", "data")
        (data / "sub" / "folder").mkdir(parents=True)
        (data / "inside").symlink_to("sub")
        (data / "outside").symlink_to(tmp_path)
        (prepared,) = await volumes.prepare("task1", "shop", needs("./sub/folder"), {"data": "v1"})
        info = (data / "sub" / "folder").stat()
        assert prepared == PreparedMount("/a", data / "sub" / "folder", identity=(info.st_dev, info.st_ino))
        (prepared,) = await volumes.prepare("task1", "shop", needs("inside/folder"), {"data": "v1"})
        assert prepared.source == data / "sub" / "folder"
        for subpath in ("outside", "outside/volumes", "missing"):
            with pytest.raises(errors.NotFound, match=f"volume data has no '{subpath}' within it"):
                await volumes.prepare("task1", "shop", needs(subpath), {"data": "v1"})

    trio.run(body)


def test_a_fresh_volume_is_left_empty_where_that_is_said(tmp_path: Path) -> None:
    volumes = LocalVolumes(tmp_path / "volumes")

    async def body() -> None:
        for no_copy in (False, True):
            needs = mount_plan.plan([Mount(kind=VOLUME, source="data", target="/a", no_copy=no_copy)])
            (prepared,) = await volumes.prepare("task1", "shop", needs, {"data": "v1"})
            assert prepared.wants_image_content is not no_copy

    trio.run(body)


def test_a_folder_that_became_a_link_after_the_check_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check itself opens the path: what was exchanged between resolving and opening is refused."""
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (secret / "data").mkdir(parents=True)
    (allowed / "sub" / "data").mkdir(parents=True)
    source = str(allowed / "sub" / "data")
    resolve = os.path.realpath

    def resolve_then_exchange(path: str) -> str:
        resolved = resolve(path)
        if path == source:
            (allowed / "sub").rename(allowed / "moved")
            (allowed / "sub").symlink_to(secret)
        return resolved

    monkeypatch.setattr(os.path, "realpath", resolve_then_exchange)
    with pytest.raises(errors.NotAllowed):
        allowed_source(source, (allowed,))


def test_a_volume_that_several_tasks_need_at_once_is_made_once(tmp_path: Path) -> None:
    volumes = LocalVolumes(tmp_path)

    async def many() -> None:
        for number in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(volumes.ensure, f"id{number}", "shop", "data")
                nursery.start_soon(volumes.list)
        assert len(await volumes.list()) == 20

    trio.run(many)
