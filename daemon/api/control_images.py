"""The control API's methods about images."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from daemon.api.caller import Caller
from daemon.api.cluster_context import VoterContext
from daemon.api.grpc_service import Receive, Send
from daemon.errors import Kind, Refused
from daemon.pulling.image_plan import (
    Arrived,
    one_matching,
    plan_arrival,
    plan_prune,
    plan_removal,
    plan_tag,
    users_of,
)
from daemon.pulling.pulls import ImagePulls, Progress
from daemon.runtime_failures import refused
from proto import control_pb2 as control
from proto import objects_pb2 as objects
from runtime.errors import RuntimeFailure
from runtime.images import ImageStore

ARCHIVE_BYTES_MAX = 64 << 30
PROGRESS_INTERVAL_S = 0.2


class ControlImages:
    """Runs on the leader; an image is loaded or pulled there, and the other hosts fetch it from it."""

    def __init__(
        self,
        context: VoterContext,
        images: ImageStore,
        folder: Path,
        loaded: Callable[[], None],
        pulls: ImagePulls,
    ) -> None:
        self._context = context
        self._images = images
        self._pulls = pulls
        self._folder = folder
        self._loaded = loaded

    async def load_image(self, receive: Receive, caller: Caller) -> control.LoadImageReply:
        await trio.to_thread.run_sync(lambda: self._folder.mkdir(parents=True, exist_ok=True))
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="load-", suffix=".tar") as file:
                name = await self._receive_archive(receive, file)
                images = await self._images.load_archive(Path(file.name), name or None)
        except RuntimeFailure as error:
            raise refused(error) from error
        except OSError as error:
            raise Refused(f"the archive could not be stored: {error}", Kind.EXHAUSTED) from error
        arrived = [Arrived(image) for image in images]
        stored, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: plan_arrival(store, arrived, self._context.identity.node_id, new_id),
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
            lambda store, _now, _id: plan_removal(store, request), caller.actor
        )
        return control.RemoveImageReply(removed=removed)

    async def pull_image(self, request: control.PullImageRequest, caller: Caller, send: Send) -> None:
        """Ends with the caller, unless another one waits for the same image."""
        progress = Progress()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, progress, send)
            image, present = await self._pulls.pull(request.image, request.refresh, caller.actor, progress)
            nursery.cancel_scope.cancel()
        await send(
            control.PullImageReply(
                layers=progress.layers,
                image_id=image.meta.id,
                manifest_digest=image.manifest_digest,
                present=present,
                name=image.meta.name,
            )
        )

    async def inspect_image(self, request: control.InspectImageRequest, _caller: Caller) -> control.InspectImageReply:
        store = await self._context.current_store()
        image = one_matching(store, request.image)
        reply = control.InspectImageReply(image=image, services=users_of(store, image))
        with contextlib.suppress(RuntimeFailure):  # where this host does not hold it yet
            reply.manifest, reply.config = await self._images.documents(image.manifest_digest)
        return reply

    async def tag_image(self, request: control.TagImageRequest, caller: Caller) -> control.TagImageReply:
        image, _ = await self._context.leading().writer.commit(
            lambda store, _now, new_id: plan_tag(store, request, new_id), caller.actor
        )
        return control.TagImageReply(image=image)

    async def prune_images(self, request: control.PruneImagesRequest, caller: Caller) -> control.PruneImagesReply:
        reply, _ = await self._context.leading().writer.commit(
            lambda store, now, _id: plan_prune(store, request, now), caller.actor
        )
        return reply


async def _tell(progress: Progress, send: Send) -> None:
    before: list[control.LayerProgress] = []
    while True:
        await trio.sleep(PROGRESS_INTERVAL_S)
        if progress.layers != before:
            before = [_copy(layer) for layer in progress.layers]
            await send(control.PullImageReply(layers=before))


def _copy(layer: control.LayerProgress) -> control.LayerProgress:
    made = control.LayerProgress()
    made.CopyFrom(layer)
    return made
