"""What containerd keeps for this host's images, in bytes, and the end of what nothing refers to.

Only our own containerd namespace is looked at and touched: others (Docker, Kubernetes, ctr) may share the containerd.
What a namespace's images, containers and leases refer to stays when it collects
(https://github.com/containerd/containerd/blob/v1.6.0/docs/garbage-collection.md); the rest is gone after `collect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from proto import containerd_pb2 as api
from runtime import image_model
from runtime.connection import LEASE_PREFIX, Connection
from runtime.content import ContentStore
from runtime.errors import NotFound
from runtime.images import ImageStore
from runtime.unpack import root_label

COMMITTED = 3  # SnapshotInfo.kind of a layer; others are views, and what containers write to
SIZES_KEPT_MAX = 20_000


def layer_part(snapshot: str) -> str:
    """Among parts of images: the first layer's snapshot has the name of its blob, where that is not compressed."""
    return f"layer/{snapshot}"


@dataclass(frozen=True)
class HeldImage:
    digest: str  # of the manifest
    names: tuple[str, ...]
    blobs: Mapping[str, int]  # digest -> bytes, those that are here
    snapshots: Mapping[str, int]  # layer_part(name) -> bytes, of its layers that are unpacked
    came_unix_ms: int


@dataclass(frozen=True)
class ImageSpace:
    images: Sequence[HeldImage]
    loose: Mapping[str, int]  # blobs and layers of no image and no container -> bytes
    loose_since_unix_ms: int  # when the last of its blobs came; 0: there is none
    containers: Mapping[str, int]  # layer_part of layers that containers stand on -> bytes
    writing: bool  # an image is being loaded, pulled or unpacked: what is loose may be its
    idle_leases: Sequence[str]  # of ours that nothing here holds any more


class ImageSpaces:
    """All methods raise RuntimeFailure."""

    def __init__(self, connection: Connection, images: ImageStore, snapshotter: str) -> None:
        self._connection = connection
        self._content = ContentStore(connection)
        self._images = images
        self._snapshotter = snapshotter
        self._layer_bytes: dict[str, int] = {}  # of committed snapshots, which never change
        self._folders: list[Path] = []

    async def folders(self) -> Sequence[Path]:
        """Where containerd keeps blobs and layers; none where it does not say."""
        if not self._folders:
            reply = await self._connection.unary(
                "introspection.v1.Introspection/Plugins", api.PluginsRequest(), api.PluginsResponse
            )
            wanted = {("io.containerd.snapshotter.v1", self._snapshotter), ("io.containerd.content.v1", "content")}
            roots = [plugin.exports.get("root", "") for plugin in reply.plugins if (plugin.type, plugin.id) in wanted]
            self._folders = sorted({Path(root) for root in roots if root})
        return self._folders

    async def look(self) -> ImageSpace:
        """Adds up what is here."""
        blobs: dict[str, api.ContentInfo] = {}
        listing = self._connection.read("content.v1.Content/List", api.ListContentRequest(), api.ListContentResponse)
        async with aclosing(listing) as contents:
            async for contained in contents:
                blobs.update((info.digest, info) for info in contained.info)
        snapshots = await self._snapshots()
        sizes = await self._sizes([info.name for info in snapshots.values() if info.kind == COMMITTED])
        layers = {layer_part(name): size for name, size in sizes.items()}
        images = await self._held(blobs, layers)
        below = {layer_part(name) for name in _ancestors(snapshots)}
        known = {part for image in images for part in (*image.blobs, *image.snapshots)}
        loose = {digest: info.size for digest, info in blobs.items() if digest not in known}
        since = max((blobs[digest].created_at.ToMilliseconds() for digest in loose), default=0)
        loose.update((name, size) for name, size in layers.items() if name not in known and name not in below)
        idle = await self._idle_leases()
        return ImageSpace(
            images=images,
            loose=loose,
            loose_since_unix_ms=since,
            containers={name: size for name, size in layers.items() if name in below},
            writing=bool(self._connection.leases),
            idle_leases=idle,
        )

    async def pack(self, manifest_digest: str) -> None:
        """Removes what was unpacked of an image, as far as no container stands on it; `unpack` makes it again."""
        manifest = next((each for _, each, _ in await self._images.described() if each.digest == manifest_digest), None)
        if manifest is None:
            raise NotFound(f"there is no image {manifest_digest} on this host")
        await self._content.label(manifest.config.digest, {root_label(self._snapshotter): ""})
        await self.collect()

    async def drop_loose(self) -> None:
        """Removes what earlier pulls left for a next try, and what nothing refers to."""
        for lease in await self._idle_leases():
            await self._connection.do("leases.v1.Leases/Delete", api.DeleteLeaseRequest(id=lease))
        await self.collect()

    async def collect(self) -> None:
        """Has containerd collect what nothing refers to; returns when it has."""
        async with self._connection.lease():
            pass  # its end does it

    async def _held(self, blobs: Mapping[str, api.ContentInfo], layers: Mapping[str, int]) -> list[HeldImage]:
        names: dict[str, list[str]] = {}
        found: dict[str, HeldImage] = {}
        for name, manifest, config in await self._images.described():
            names.setdefault(manifest.digest, []).append(name)
            parts = [manifest.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
            chain = image_model.chain_ids(config.diff_ids)
            came = blobs[manifest.digest].created_at.ToMilliseconds() if manifest.digest in blobs else 0
            found[manifest.digest] = HeldImage(
                digest=manifest.digest,
                names=tuple(names[manifest.digest]),
                blobs={digest: blobs[digest].size for digest in parts if digest in blobs},
                snapshots={part: layers[part] for part in map(layer_part, chain) if part in layers},
                came_unix_ms=came,
            )
        return list(found.values())

    async def _snapshots(self) -> dict[str, api.SnapshotInfo]:
        found: dict[str, api.SnapshotInfo] = {}
        request = api.ListSnapshotsRequest(snapshotter=self._snapshotter)
        listing = self._connection.read("snapshots.v1.Snapshots/List", request, api.ListSnapshotsResponse)
        async with aclosing(listing) as replies:
            async for reply in replies:
                found.update((info.name, info) for info in reply.info)
        return found

    async def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        if len(self._layer_bytes) > SIZES_KEPT_MAX:
            self._layer_bytes.clear()
        for name in names:
            if name not in self._layer_bytes:
                request = api.SnapshotKeyRequest(snapshotter=self._snapshotter, key=name)
                try:
                    usage = await self._connection.unary(
                        "snapshots.v1.Snapshots/Usage", request, api.SnapshotUsageResponse
                    )
                except NotFound:
                    continue  # gone since it was listed
                self._layer_bytes[name] = usage.size
        return {name: self._layer_bytes[name] for name in names if name in self._layer_bytes}

    async def _idle_leases(self) -> list[str]:
        reply = await self._connection.unary("leases.v1.Leases/List", api.ListLeasesRequest(), api.ListLeasesResponse)
        ours = [lease.id for lease in reply.leases if lease.id.startswith(LEASE_PREFIX)]
        return [each for each in ours if each not in self._connection.leases]


def _ancestors(snapshots: Mapping[str, api.SnapshotInfo]) -> set[str]:
    """Layers below what containers write to and what is being looked at."""
    found: set[str] = set()
    for info in snapshots.values():
        name = info.parent if info.kind != COMMITTED else ""
        while name and name not in found:
            found.add(name)
            name = snapshots[name].parent if name in snapshots else ""
    return found
