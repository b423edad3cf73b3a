"""The images of this host, kept by containerd."""

from __future__ import annotations

import errno
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TypeVar

import trio

from proto import containerd_pb2 as api
from runtime import archive, image_files, image_model
from runtime.archive_layouts import Found
from runtime.connection import Connection
from runtime.content import ContentStore
from runtime.errors import AlreadyExists, InvalidImage, NoSpace, NotFound, RuntimeFailure, Unavailable
from runtime.image_model import Blob, Manifest
from runtime.model import ImageConfig, LoadedImage
from runtime.references import normalise_reference, with_digest
from runtime.unpack import Unpacker

log = logging.getLogger(__name__)

T = TypeVar("T")
Fetch = Callable[[str], AsyncIterator[bytes]]
InTurn = Callable[[Sequence[Blob]], Awaitable[Iterator[Blob]]]

KNOWN_IMAGES_MAX = 256
LAYER_TRIES_MAX = 2  # of one whose bytes do not match its digest


class ImageStore:
    """All methods raise RuntimeFailure; digests are of manifests unless said otherwise."""

    def __init__(self, connection: Connection, snapshotter: str, work_folder: Path) -> None:
        self._connection = connection
        self._content = ContentStore(connection)
        self._unpacker = Unpacker(connection, self._content, snapshotter)
        self._snapshotter = snapshotter
        self._work_folder = work_folder
        self._architecture = image_model.host_architecture()
        self._known: OrderedDict[str, tuple[Manifest, ImageConfig]] = OrderedDict()

    async def load_archive(self, path: Path, name: str | None = None) -> list[LoadedImage]:
        """Loads an OCI layout or `docker save` archive, gzip'd or not; `name` instead of the archive's own.

        All of it is verified before anything is stored. Raises InvalidImage, WrongArchitecture,
        InvalidRequest or NoSpace, and then nothing is left behind.
        """
        try:
            reading = archive.opened(path, self._work_folder)
            opened = await trio.to_thread.run_sync(reading.__enter__)
        except OSError as error:
            raise _disk_failure(path, error) from None
        try:
            found = await trio.to_thread.run_sync(archive.check, opened, name, self._architecture)
            async with self._connection.lease() as lease:
                for image in found:
                    await self._store(image, opened, lease)
                for image in found:
                    await self._name(image.name, image.manifest)
        except OSError as error:
            raise _disk_failure(path, error) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(reading.__exit__, None, None, None)
        return [_loaded(image.name, image.manifest, _config_of(image)) for image in found]

    async def import_blobs(
        self,
        name: str,
        manifest_digest: str,
        fetch: Fetch,
        *,
        layers_at_once: int = 1,
        in_turn: InTurn | None = None,
        on_layer: Callable[[Blob], None] | None = None,
        keep_part: bool = False,
        unpack: bool = False,
    ) -> LoadedImage:
        """Takes an image from elsewhere: `fetch(digest)` gives a blob's bytes. Only what lacks is fetched;
        everything is verified. `in_turn` says in which order layers come; `on_layer` hears of each that is here. Raises
        InvalidImage or WrongArchitecture, and then nothing is left behind; `keep_part`: where the other side fails,
        whole layers stay until their lease's end, so that the next try finds them. `unpack`: each layer is unpacked as
        soon as it and those below it are here; where that fails, `unpack` tries again and says why."""
        async with self._connection.lease(keep_on=Unavailable if keep_part else None) as lease:
            data = await self._document(manifest_digest, fetch)
            manifest = image_model.parse_manifest(data)
            config_data = await self._document(manifest.config.digest, fetch)
            config = image_model.parse_config(config_data)
            image_model.check_platform(config, self._architecture)
            image_model.check_layers(manifest, config)
            layers = list({layer.digest: layer for layer in manifest.layers}.values())
            turns = iter(layers) if in_turn is None else await in_turn(layers)
            here = {layer.digest: trio.Event() for layer in layers}

            async def take(layer: Blob) -> None:
                await self._take_layer(layer, fetch, lease, on_layer)
                here[layer.digest].set()

            unpacking = _Unpacking(self._unpacker, manifest, config) if unpack else None
            parts = [lambda: _each(turns, layers_at_once, take)]
            if unpacking is not None:
                parts.append(lambda: unpacking.run(lease, lambda layer: here[layer.digest].wait()))
            await _each(iter(parts), len(parts), lambda part: part())
            documents = {manifest.digest: data, manifest.config.digest: config_data}
            await self._store_documents(manifest, documents, lease)
            if unpacking is not None and unpacking.done:
                await self._unpacker.keep(manifest, config)
            await self._name(normalise_reference(name), manifest)
        return _loaded(normalise_reference(name), manifest, config)

    async def _take_layer(self, layer: Blob, fetch: Fetch, lease: str, on_layer: Callable[[Blob], None] | None) -> None:
        for attempt in range(1, LAYER_TRIES_MAX + 1):
            if await self._content.held(layer, lease):
                break
            try:
                await self._content.write(layer, _as_generator(fetch(layer.digest)), lease)
                break
            except InvalidImage as error:  # damaged on its way, or where it comes from
                if attempt == LAYER_TRIES_MAX:
                    raise
                log.warning("%s: once more", error)
        if on_layer is not None:
            on_layer(layer)

    async def list(self) -> Sequence[LoadedImage]:
        """Every name; images that are incomplete or for other platforms are passed over."""
        return [_loaded(*each) for each in await self.described()]

    async def described(self) -> Sequence[tuple[str, Manifest, ImageConfig]]:
        """As `list`, with the manifest and the configuration."""
        images = []
        for entry in await self._names():
            try:
                manifest, config = await self._read(entry.target.digest)
            except (NotFound, InvalidImage) as error:
                log.debug("image %s is passed over: %s", entry.name, error)
                continue
            images.append((entry.name, manifest, config))
        return images

    async def remove(self, digest_or_name: str) -> Sequence[str]:
        """Removes a name, or all names of a digest; returns them. Running containers go on."""
        if digest_or_name.startswith("sha256:"):
            names = [entry.name for entry in await self._names() if entry.target.digest == digest_or_name]
        else:
            wanted = normalise_reference(digest_or_name)
            names = [entry.name for entry in await self._names() if entry.name == wanted]
        if not names:
            raise NotFound(f"there is no image {digest_or_name} on this host")
        for name in names:
            await self._connection.do("images.v1.Images/Delete", api.DeleteImageRequest(name=name, sync=True))
        self._known.clear()
        return names

    async def has(self, manifest_digest: str) -> bool:
        """True where the manifest, the configuration and every layer are here, and so is a name."""
        if not any(entry.target.digest == manifest_digest for entry in await self._names()):
            return False
        try:
            manifest, _ = await self._read(manifest_digest)
        except (NotFound, InvalidImage):
            return False
        return all([await self._content.has(layer.digest) for layer in manifest.layers])

    async def held(self, digests: Iterable[str]) -> Sequence[str]:
        """Which of these blobs are here, in whole."""
        return [digest for digest in digests if await self._content.has(digest)]

    async def unpack(self, manifest_digest: str) -> str:
        """Makes the image's snapshots where they lack; returns the name of the top one. Repeatable."""
        manifest, config = await self._read(manifest_digest)
        return await self._unpacker.unpack(manifest, config)

    async def top_snapshot(self, manifest_digest: str) -> str:
        """The name that `unpack` returns, without a look whether the snapshot is there."""
        return image_model.chain_ids((await self._read(manifest_digest))[1].diff_ids)[-1]

    async def config(self, manifest_digest: str) -> ImageConfig:
        return (await self._read(manifest_digest))[1]

    async def blobs(self, manifest_digest: str) -> Sequence[str]:
        """Digests of the manifest, the configuration and the layers. Raises NotFound."""
        manifest, _ = await self._read(manifest_digest)
        return list(
            dict.fromkeys([manifest_digest, manifest.config.digest, *(each.digest for each in manifest.layers)])
        )

    async def documents(self, manifest_digest: str) -> tuple[bytes, bytes]:
        """Manifest and configuration as JSON. Raises NotFound."""
        data = await self._content.read_document(manifest_digest)
        config = image_model.parse_manifest(data).config
        return data, await self._content.read_document(config.digest)

    def read_blob(self, digest: str, offset_bytes: int = 0) -> AsyncGenerator[bytes, None]:
        """Any blob (manifest, configuration, layer) by its digest; close it (contextlib.aclosing) where
        you may stop before its end."""
        return self._content.read(digest, offset_bytes)

    async def with_files(self, manifest_digest: str, function: Callable[[Path], T]) -> T:
        """Calls `function(root folder of the image)` in a thread of its own; see runtime/image_files.py."""
        top = await self.unpack(manifest_digest)
        key = f"view-{random.getrandbits(64):016x}"
        request = api.PrepareSnapshotRequest(snapshotter=self._snapshotter, key=key, parent=top)
        async with self._connection.lease() as lease:
            reply = await self._connection.unary(
                "snapshots.v1.Snapshots/View", request, api.MountsResponse, lease=lease
            )
            try:
                mounts = [image_files.ViewMount(m.type, m.source, tuple(m.options)) for m in reply.mounts]
                return await image_files.with_view(mounts, self._work_folder, function)
            finally:
                with trio.CancelScope(shield=True):
                    await self._unpacker.remove(key)

    async def _document(self, digest: str, fetch: Fetch) -> bytes:
        if await self._content.has(digest):
            return await self._content.read_document(digest)
        data = b""
        async with aclosing(_as_generator(fetch(digest))) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > image_model.DOCUMENT_BYTES_MAX:
                    raise InvalidImage(f"blob {digest} is larger than a document may be")
        if image_model.digest_of(data) != digest:
            raise InvalidImage(f"blob {digest} does not match its digest")
        return data

    async def _store(self, image: Found, opened: archive.Archive, lease: str) -> None:
        for layer in image.manifest.layers:
            chunks = _from_thread(opened.chunks(opened.part(image.members[layer.digest])))
            await self._content.write(layer, chunks, lease)
        await self._store_documents(image.manifest, image.documents, lease)

    async def _store_documents(self, manifest: Manifest, documents: dict[str, bytes], lease: str) -> None:
        await self._content.write(manifest.config, _once(documents[manifest.config.digest]), lease)
        blob = Blob(manifest.digest, manifest.size_bytes, manifest.media_type)
        labels = image_model.references(manifest)
        await self._content.write(blob, _once(documents[manifest.digest]), lease, labels)

    async def _name(self, name: str, manifest: Manifest) -> None:
        """The name now means this manifest. What it meant before is kept as NAME@DIGEST until it is removed: tasks may
        be made of it, and what has no name is collected with the end of the next lease."""
        blob = Blob(manifest.digest, manifest.size_bytes, manifest.media_type)
        image = api.Image(name=name, target=image_model.descriptor(blob))
        try:
            await self._connection.do("images.v1.Images/Create", api.CreateImageRequest(image=image))
        except AlreadyExists:
            for entry in await self._names():
                if entry.name == name and entry.target.digest != manifest.digest:
                    await self._keep(entry)
            request = api.UpdateImageRequest(image=image)
            request.update_mask.paths.append("target")
            await self._connection.do("images.v1.Images/Update", request)

    async def _keep(self, entry: api.Image) -> None:
        kept = api.Image(name=with_digest(entry.name, entry.target.digest), target=entry.target)
        with suppress(AlreadyExists):
            await self._connection.do("images.v1.Images/Create", api.CreateImageRequest(image=kept))

    async def _names(self) -> Sequence[api.Image]:
        reply = await self._connection.unary("images.v1.Images/List", api.ListImagesRequest(), api.ListImagesResponse)
        return sorted(reply.images, key=lambda entry: entry.name)

    async def _read(self, manifest_digest: str) -> tuple[Manifest, ImageConfig]:
        known = self._known.get(manifest_digest)
        if known is None:
            try:
                manifest = image_model.parse_manifest(await self._content.read_document(manifest_digest))
            except NotFound:
                raise NotFound(f"there is no image {manifest_digest} on this host") from None
            config = image_model.parse_config(await self._content.read_document(manifest.config.digest))
            known = manifest, config
            self._known[manifest_digest] = known
            if len(self._known) > KNOWN_IMAGES_MAX:
                self._known.popitem(last=False)
        return known


class _Unpacking:
    """Of an image that is still coming."""

    def __init__(self, unpacker: Unpacker, manifest: Manifest, config: ImageConfig) -> None:
        self._unpacker = unpacker
        self._manifest = manifest
        self._config = config
        self.done = False

    async def run(self, lease: str, ready: Callable[[Blob], Awaitable[None]]) -> None:
        try:
            await self._unpacker.apply(self._manifest, self._config, lease, ready)
        except RuntimeFailure as error:
            log.warning("image %s is not unpacked while it comes: %s", self._manifest.digest, error)
        else:
            self.done = True


async def _each(waiting: Iterator[T], at_once: int, do: Callable[[T], Awaitable[None]]) -> None:
    """`do` for every item, a few at a time; the first failure ends the others and is raised as it is."""
    failures = []

    async def work(scope: trio.CancelScope) -> None:
        for item in waiting:
            try:
                await do(item)
            except Exception as error:
                failures.append(error)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work, nursery.cancel_scope)
    if failures:
        raise failures[0]


def _config_of(image: Found) -> ImageConfig:
    return image_model.parse_config(image.documents[image.manifest.config.digest])


def _loaded(name: str, manifest: Manifest, config: ImageConfig) -> LoadedImage:
    return LoadedImage(
        name,
        manifest.digest,
        manifest.config.digest,
        config.architecture,
        config.operating_system,
        manifest.total_bytes,
    )


def _disk_failure(path: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"cannot read {path}: the disk for temporary files is full")
    return InvalidImage(f"cannot read {path}: {error.strerror or error}")


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def _from_thread(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    while (chunk := await trio.to_thread.run_sync(next, chunks, b"")) != b"":
        yield chunk


async def _as_generator(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Closing it also closes `chunks`, where that can be closed."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
