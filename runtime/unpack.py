"""Layers to snapshots: each is applied once, whoever asks and however many at a time."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio

from proto import containerd_pb2 as api
from runtime import image_model
from runtime.connection import Connection
from runtime.content import ContentStore
from runtime.errors import AlreadyExists, InvalidImage, NoSpace, NotFound, RuntimeFailure
from runtime.image_model import Blob, Manifest
from runtime.model import ImageConfig

APPLY_TIMEOUT_MS = 30 * 60 * 1000
CLEAN_WAIT_MS = 5_000


class Unpacker:
    def __init__(self, connection: Connection, content: ContentStore, snapshotter: str) -> None:
        self._connection = connection
        self._content = content
        self._snapshotter = snapshotter
        self._locks: dict[str, trio.Lock] = {}  # chain id -> held by who applies it

    async def unpack(self, manifest: Manifest, config: ImageConfig) -> str:
        """Makes the image's snapshots where they are lacking; returns the top one's name (chain id)."""
        image_model.check_layers(manifest, config)
        top = image_model.chain_ids(config.diff_ids)[-1]
        if not await self.has(top):
            async with self._connection.lease() as lease:
                await self.apply(manifest, config, lease)
                await self.keep(manifest, config)
        return top

    async def apply(
        self,
        manifest: Manifest,
        config: ImageConfig,
        lease: str,
        ready: Callable[[Blob], Awaitable[None]] | None = None,
    ) -> None:
        """Makes the snapshots that lack, under a lease; `ready` returns when a layer is here."""
        parent = ""
        chain = image_model.chain_ids(config.diff_ids)
        for layer, diff_id, name in zip(manifest.layers, config.diff_ids, chain, strict=True):
            if ready is not None:
                await ready(layer)
            await self._once(lease, layer, diff_id, parent, name)
            parent = name

    async def keep(self, manifest: Manifest, config: ImageConfig) -> None:
        """The snapshots stay as long as the image, whose configuration must be here."""
        # The configuration refers to the snapshots, so they live as long as the image (containerd's rule).
        top = image_model.chain_ids(config.diff_ids)[-1]
        await self._content.label(manifest.config.digest, {root_label(self._snapshotter): top})

    async def has(self, name: str) -> bool:
        request = api.SnapshotKeyRequest(snapshotter=self._snapshotter, key=name)
        try:
            await self._connection.do("snapshots.v1.Snapshots/Stat", request)
        except NotFound:
            return False
        return True

    async def remove(self, key: str) -> None:
        """Removes an active snapshot or view; what is gone already is fine."""
        request = api.SnapshotKeyRequest(snapshotter=self._snapshotter, key=key)
        try:
            await self._connection.do("snapshots.v1.Snapshots/Remove", request)
        except NotFound:
            return

    async def _once(self, lease: str, layer: Blob, diff_id: str, parent: str, name: str) -> None:
        lock = self._locks.setdefault(name, trio.Lock())
        try:
            async with lock:
                if not await self.has(name):
                    await self._apply(lease, layer, diff_id, parent, name)
        finally:
            if not lock.locked() and lock.statistics().tasks_waiting == 0:
                self._locks.pop(name, None)

    async def _apply(self, lease: str, layer: Blob, diff_id: str, parent: str, name: str) -> None:
        key = f"extract-{random.getrandbits(64):016x} {name}"
        prepare = api.PrepareSnapshotRequest(snapshotter=self._snapshotter, key=key, parent=parent)
        written: list[Path] = []
        try:
            reply = await self._connection.unary(
                "snapshots.v1.Snapshots/Prepare", prepare, api.MountsResponse, lease=lease
            )
            written = _written_folders(reply.mounts)
            applied = await self._connection.unary(
                "diff.v1.Diff/Apply",
                api.ApplyRequest(diff=image_model.descriptor(layer), mounts=reply.mounts),
                api.ApplyResponse,
                lease=lease,
                timeout_ms=APPLY_TIMEOUT_MS,
            )
            if applied.applied.digest != diff_id:
                raise InvalidImage(f"layer {layer.digest} does not unpack to {diff_id}: the image is damaged")
            commit = api.CommitSnapshotRequest(snapshotter=self._snapshotter, name=name, key=key)
            await self._connection.do("snapshots.v1.Snapshots/Commit", commit, lease=lease)
        except BaseException as error:
            with trio.move_on_after(CLEAN_WAIT_MS / 1000, shield=True):
                if isinstance(error, NoSpace):
                    # containerd needs room in its own database to remove the snapshot: make it.
                    await trio.to_thread.run_sync(_empty, written)
                with contextlib.suppress(RuntimeFailure):  # the lease's end removes it then
                    await self.remove(key)
            if not isinstance(error, AlreadyExists):  # another process on this containerd was first
                raise


def root_label(snapshotter: str) -> str:
    """Of an image's configuration: the name of its top snapshot, which stays as long as the label."""
    return f"containerd.io/gc.ref.snapshot.{snapshotter}"


def _written_folders(mounts: Iterable[api.Mount]) -> list[Path]:
    """Where on the disk the layer that these mounts are for is written: a bind's source or an overlay's upperdir."""
    folders = [mount.source for mount in mounts if mount.type == "bind"]
    options = [option for mount in mounts for option in mount.options]
    folders += [option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")]
    return [Path(folder) for folder in folders]


def _empty(folders: Iterable[Path]) -> None:
    """Removes what is in them, as far as it goes."""
    for folder in folders:
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()
