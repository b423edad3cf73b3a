"""Volumes as local folders: FOLDER/<volume id>/data, with volume.json beside it saying whose it is."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from storage import mount_plan
from storage.bind_mounts import CheckedSource, allowed_source
from storage.errors import InvalidMount, NoSpace, NotAllowed, NotFound, StorageFailure
from storage.mount_plan import BindNeed, Need, TmpfsNeed

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_REMOVING = ".removing-"


@dataclass(frozen=True)
class LocalVolume:
    id: str
    app: str
    name: str  # within the app; "" for an anonymous one
    task_id: str = ""  # of an anonymous one: it is removed with this task


@dataclass(frozen=True)
class PreparedMount:
    """Ready to be mounted; the daemon turns it into the runtime's own words."""

    target: str
    source: Path | None  # None: a tmpfs
    read_only: bool = False
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    # The volume is empty: give it what the image has at `target` (storage.population.populate).
    wants_image_content: bool = False
    # (device, inode) of a path that others may exchange until it is mounted; None: nobody else can.
    identity: tuple[int, int] | None = None


class LocalVolumes:
    """Raises StorageFailure; every method is safe to repeat."""

    def __init__(self, folder: Path, allowed_bind_mounts: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        self._allowed = allowed_bind_mounts
        self._making = trio.Lock()  # tasks that share a volume are prepared at once

    async def ensure(self, volume_id: str, app: str, name: str) -> Path:
        """Makes the volume where it is lacking; returns the folder that tasks mount."""
        return await self._ensure(LocalVolume(volume_id, app, name))

    def path(self, volume_id: str) -> Path:
        """Where the volume's data is, if it exists; raises InvalidMount on an id that is none."""
        if not _ID.fullmatch(volume_id):
            raise InvalidMount(f"{volume_id!r} is no id of a volume")
        return self._folder / volume_id / "data"

    async def remove(self, volume_id: str) -> None:
        """Removes the volume and its data; harmless where it is gone."""
        path = self.path(volume_id).parent
        await trio.to_thread.run_sync(_remove_folder, path, path.with_name(f"{_REMOVING}{volume_id}"))

    async def remove_anonymous(self, task_id: str) -> None:
        """Removes a task's anonymous volumes."""
        for volume in await self.list():
            if volume.task_id == task_id:
                await self.remove(volume.id)

    async def list(self) -> Sequence[LocalVolume]:
        """All volumes here, by id; what an interrupted removal left is removed for good."""
        async with self._making:
            found, left = await trio.to_thread.run_sync(_list_folder, self._folder)
        for folder in left:  # with much data in it this takes long, and nobody waits for it to make a volume
            await trio.to_thread.run_sync(_remove_left, folder)
        return found

    async def prepare(
        self, task_id: str, app: str, needs: Sequence[Need], volume_ids: Mapping[str, str]
    ) -> Sequence[PreparedMount]:
        """Makes ready what `mount_plan.plan` asks for; `volume_ids`: name within the app -> id.

        Raises NotAllowed, NotFound, InvalidMount or NoSpace; volumes made before that stay.
        """
        prepared = []
        for need in needs:
            if isinstance(need, TmpfsNeed):
                prepared.append(PreparedMount(need.target, None, need.read_only, need.size_bytes, need.mode))
            elif isinstance(need, BindNeed):
                source = await trio.to_thread.run_sync(allowed_source, need.source, self._allowed)
                identity = source.device, source.inode
                prepared.append(PreparedMount(need.target, source.path, need.read_only, identity=identity))
            else:
                volume = self._volume(task_id, app, need, volume_ids)
                path = await self._ensure(volume)
                if need.subpath:
                    # What tasks have put there may be a link: it must not lead out, now or when it is mounted.
                    found = await trio.to_thread.run_sync(_within, path, need)
                    identity = found.device, found.inode
                    prepared.append(PreparedMount(need.target, found.path, need.read_only, identity=identity))
                    continue
                empty = not need.no_copy and await trio.to_thread.run_sync(_is_empty, path)
                prepared.append(PreparedMount(need.target, path, need.read_only, wants_image_content=empty))
        return prepared

    def _volume(
        self, task_id: str, app: str, need: mount_plan.VolumeNeed, volume_ids: Mapping[str, str]
    ) -> LocalVolume:
        if not need.name:
            return LocalVolume(mount_plan.anonymous_id(task_id, need.target), app, "", task_id)
        volume_id = volume_ids.get(need.name)
        if volume_id is None:
            raise NotFound(f"mount {need.target}: app {app} has no volume {need.name!r} on this host")
        return LocalVolume(volume_id, app, need.name)

    async def _ensure(self, volume: LocalVolume) -> Path:
        path = self.path(volume.id)
        try:
            async with self._making:
                await trio.to_thread.run_sync(_make_folder, path, volume)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(f"volume {volume.name or volume.id}: the disk is full") from None
            raise StorageFailure(f"volume {volume.name or volume.id} cannot be made: {error}") from None
        return path


def _make_folder(path: Path, volume: LocalVolume) -> None:
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.parent.chmod(0o711)  # tasks' users pass through, nobody lists
    description = path.with_name("volume.json")
    fresh = path.with_name("volume.json.new")
    fresh.write_text(json.dumps(asdict(volume)) + "\n")
    fresh.replace(description)
    path.mkdir(mode=0o755)


def _remove_folder(path: Path, removing: Path) -> None:
    if path.exists():
        _remove_left(removing)
        path.replace(removing)  # from now on it is gone, whatever interrupts the rest
    _remove_left(removing)


def _remove_left(removing: Path) -> None:
    shutil.rmtree(removing, ignore_errors=True)


def _list_folder(folder: Path) -> tuple[Sequence[LocalVolume], Sequence[Path]]:
    """The volumes, and the folders that an interrupted removal left."""
    if not folder.is_dir():
        return [], []
    found, left = [], []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(_REMOVING):
            left.append(entry)
            continue
        try:
            found.append(LocalVolume(**json.loads((entry / "volume.json").read_text())))
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is no volume: %s", entry, error)
    return found, left


def _within(path: Path, need: mount_plan.VolumeNeed) -> CheckedSource:
    try:
        return allowed_source(str(path / need.subpath), (path,))
    except (NotAllowed, NotFound):
        raise NotFound(
            f"mount {need.target}: volume {need.name} has no {need.subpath!r} within it; make it there first"
        ) from None


def _is_empty(path: Path) -> bool:
    return not any(path.iterdir())
