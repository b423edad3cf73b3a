"""The control API's methods about images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.grpc_service import Receive
from daemon.errors import Kind, Refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from raft.store import Store
from raft.transaction import TransactionBuilder
from runtime.errors import NoSpace, RuntimeFailure, Unavailable
from runtime.images import ImageStore
from runtime.model import LoadedImage
from runtime.references import normalise_reference

ARCHIVE_BYTES_MAX = 64 << 30


class ControlImages:
    """Runs on the leader; an image is loaded there, and the other hosts fetch it from it."""

    def __init__(self, context: VoterContext, images: ImageStore, folder: Path, loaded: Callable[[], None]) -> None:
        self._context = context
        self._images = images
        self._folder = folder
        self._loaded = loaded

    async def load_image(self, receive: Receive, caller: Caller) -> control.LoadImageReply:
        await trio.to_thread.run_sync(lambda: self._folder.mkdir(parents=True, exist_ok=True))
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="load-", suffix=".tar") as file:
                name = await self._receive_archive(receive, file)
                images = await self._images.load_archive(Path(file.name), name or None)
        except RuntimeFailure as error:
            raise _refused(error) from error
        except OSError as error:
            raise Refused(f"the archive could not be stored: {error}", Kind.EXHAUSTED) from error
        stored, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: _plan_images(store, images, self._context.identity.node_id, new_id),
            caller.actor,
        )
        self._loaded()
        known = self._context.store.table(objects.Image)
        return control.LoadImageReply(images=[known.get(image.meta.id) or image for image in stored])

    async def _receive_archive(self, receive: Receive, file: tempfile._TemporaryFileWrapper[bytes]) -> str:
        name, size_bytes = "", 0
        while (message := await receive()) is not None:
            name = name or message.name
            size_bytes += len(message.data)
            if size_bytes > ARCHIVE_BYTES_MAX:
                raise Refused(f"the archive is larger than {ARCHIVE_BYTES_MAX >> 30} GiB", Kind.EXHAUSTED)
            await trio.to_thread.run_sync(file.write, message.data)
        await trio.to_thread.run_sync(file.flush)
        if size_bytes == 0:
            raise Refused("the archive is empty")
        return name

    async def list_images(self, _request: control.ListImagesRequest, _caller: Caller) -> control.ListImagesReply:
        store = await self._context.current_store()
        images = sorted(store.table(objects.Image), key=lambda image: image.meta.name)
        return control.ListImagesReply(images=images, node_count=len(store.table(objects.Node)))

    async def remove_image(self, request: control.RemoveImageRequest, caller: Caller) -> control.RemoveImageReply:
        removed, _ = await self._context.leading().writer.commit(
            lambda store, _now, _id: _plan_removal(store, request), caller.actor
        )
        return control.RemoveImageReply(removed=removed)


def _refused(error: RuntimeFailure) -> Refused:
    if isinstance(error, NoSpace):
        return Refused(str(error), Kind.EXHAUSTED)
    return Refused(str(error), Kind.UNAVAILABLE if isinstance(error, Unavailable) else Kind.INVALID)


def _plan_images(
    store: Store, loaded: list[LoadedImage], node_id: str, new_id: Callable[[], str]
) -> tuple[TransactionBuilder, list[objects.Image]]:
    builder, stored = TransactionBuilder(), []
    for image in loaded:
        known = store.table(objects.Image).unique("name", image.name)
        wanted = objects.Image()
        if known is not None:
            wanted.CopyFrom(known)
        else:
            wanted.meta.id, wanted.meta.name, wanted.meta.format = new_id(), image.name, 1
        holders = list(wanted.node_ids) if wanted.manifest_digest == image.manifest_digest else []
        if node_id not in holders:
            holders.append(node_id)
        wanted.manifest_digest, wanted.config_digest = image.manifest_digest, image.config_digest
        wanted.architecture, wanted.operating_system = image.architecture, image.operating_system
        wanted.size_bytes = image.size_bytes
        wanted.node_ids[:] = holders
        if known is None:
            builder.create(wanted)
        elif wanted != known:
            builder.update(wanted)
        stored.append(wanted)
    return builder, stored


def _plan_removal(store: Store, request: control.RemoveImageRequest) -> tuple[TransactionBuilder, list[str]]:
    wanted = request.image
    try:
        normalised = normalise_reference(wanted)
    except ValueError:
        normalised = wanted
    matches = [
        image
        for image in store.table(objects.Image)
        if image.meta.name in (wanted, normalised)
        or (
            len(wanted) >= 4
            and image.manifest_digest.removeprefix("sha256:").startswith(wanted.removeprefix("sha256:"))
        )
    ]
    if not matches:
        raise Refused(f"there is no image {wanted!r}; `fairway image ls` lists them", Kind.NOT_FOUND)
    builder = TransactionBuilder()
    for image in matches:
        users = sorted(
            {
                f"{service.app}/{service.meta.name}"
                for service in store.table(objects.Service)
                if service.image_digest == image.manifest_digest and not service.removing
            }
        )
        if users and not request.force:
            raise Refused(
                f"image {image.meta.name} is used by {', '.join(users)}; remove these first, or use --force",
                Kind.NOT_POSSIBLE,
            )
        builder.delete(image)
    return builder, [image.meta.name for image in matches]
