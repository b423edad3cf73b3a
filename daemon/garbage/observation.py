"""Looks at this host's disks: file systems, images, logs, volumes. Blocking parts run in worker threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from daemon.agent.host_view import HostView
from daemon.config import Config
from daemon.garbage import items_plan
from daemon.garbage.garbage_plan import FileSystem, Item
from daemon.garbage.items_plan import Folder
from daemon.garbage.room import used_and_whole_bytes
from daemon.ids import is_id
from runtime.errors import RuntimeFailure
from runtime.runtime import Runtime
from storage.volumes import LocalVolumes

ENTRIES_MAX = 500_000  # of all folders together, that are added up in one look
INCOMING = "incoming"  # below the state folder: archives of `image load`
UPLOADS = "load-*.tar"


@dataclass(frozen=True)
class Need:
    """What this host needs, as its agent knows it."""

    digests: Collection[str]  # of images that tasks here are made of
    spare: Collection[str]  # of images that others keep
    unused_unix_ms: Mapping[str, int]  # digest -> when one was needed last
    in_use: Callable[[str], bool]  # whether this host is busy with a task
    sure: bool  # a leader has said so since the daemon started


class Observer:
    """Of one host."""

    def __init__(self, config: Config, runtime: Runtime, volumes: LocalVolumes, view: HostView) -> None:
        self._config = config
        self._runtime = runtime
        self._volumes = volumes
        self._view = view

    async def image_folders(self) -> list[Path]:
        """None where containerd does not answer."""
        try:
            return list(await self._runtime.spaces.folders())
        except RuntimeFailure:
            return []

    async def file_systems(self) -> list[FileSystem]:
        """Each once."""
        return await trio.to_thread.run_sync(_file_systems, self._places(await self.image_folders()))

    async def items(self, need: Need, now_unix_ms: int) -> list[Item]:
        """Raises RuntimeFailure, OSError, StorageFailure."""
        config = self._config
        images = await self.image_folders()
        logs, volumes, state = config.logs.folder, config.storage.volumes_folder, config.host.state_folder
        found: list[Item] = []
        if images:
            space, device = await self._runtime.spaces.look(), await trio.to_thread.run_sync(_device, images[0])
            found += items_plan.image_items(space, device, need.digests, need.spare, need.unused_unix_ms, need.sure)
        counted = _Count()
        logged = await trio.to_thread.run_sync(_folders, logs, counted)
        keep_days = config.garbage.log_keep_days
        found += items_plan.log_items(logged, _device(logs), need.in_use, keep_days, need.sure)
        listed = await self._volumes.list()
        folders = {each.id: each for each in await trio.to_thread.run_sync(_folders, volumes, counted)}
        known = {volume.meta.id for volume in self._view.volumes}
        pairs = [(volume, folders[volume.id]) for volume in listed if volume.id in folders]
        found += items_plan.volume_items(pairs, _device(volumes), known, need.in_use, need.sure)
        uploads = await trio.to_thread.run_sync(_uploads, state / INCOMING)
        found += items_plan.upload_items(uploads, _device(state), now_unix_ms)
        return found

    def _places(self, images: Iterable[Path]) -> list[tuple[Path, str]]:
        config = self._config
        return [
            *((folder, "images") for folder in images),
            (config.logs.folder, "logs"),
            (config.storage.volumes_folder, "volumes"),
            (config.host.state_folder, "state"),
        ]


class _Count:
    """How many entries were looked at."""

    def __init__(self) -> None:
        self.entries = 0


def _device(path: Path) -> int:
    """Of the file system that a folder is on, or will be."""
    for each in (path, *path.parents):
        try:
            return each.stat().st_dev
        except FileNotFoundError:
            continue
    return 0


def _file_systems(places: Iterable[tuple[Path, str]]) -> list[FileSystem]:
    held: dict[int, list[str]] = {}
    paths: dict[int, Path] = {}
    for path, what in places:
        device = _device(path)
        if path.exists():
            paths.setdefault(device, path)
            held.setdefault(device, []).append(what)
    found = []
    for device, path in paths.items():
        status = os.statvfs(path)
        used, whole = used_and_whole_bytes(status)
        holds = tuple(dict.fromkeys(held[device]))
        inodes_used = status.f_files - status.f_ffree
        found.append(FileSystem(device, str(path), holds, used, whole, inodes_used, status.f_files))
    return found


def _folders(parent: Path, counted: _Count) -> list[Folder]:
    """Folders named by ids of ours (of an anonymous volume: its task's, and more), with all that is in them."""
    try:
        entries = [entry for entry in os.scandir(parent) if is_id(entry.name.partition("-")[0])]
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        size_bytes, changed_s = 0, 0.0
        for status in _within(Path(entry.path), counted):
            size_bytes += status.st_blocks * 512
            changed_s = max(changed_s, status.st_mtime)
        found.append(Folder(entry.name, size_bytes, int(changed_s * 1000)))
    return found


def _within(folder: Path, counted: _Count) -> Iterator[os.stat_result]:
    waiting = [folder]
    while waiting and counted.entries < ENTRIES_MAX:
        here = waiting.pop()
        try:
            yield here.lstat()
            for entry in os.scandir(here):
                counted.entries += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile


def _uploads(folder: Path) -> list[Folder]:
    found = []
    for path in folder.glob(UPLOADS):
        try:
            status = path.lstat()
        except OSError:
            continue
        found.append(Folder(path.name, status.st_blocks * 512, int(status.st_mtime * 1000)))
    return found
